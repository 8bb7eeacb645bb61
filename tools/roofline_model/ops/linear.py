"""A factorized layer for few rows: the launches of src/linear/gpu.rs, k and rank in whole pieces of eight elements."""

from workload import Launch, Runs, Share

SHAPE = {"m": 1, "n": 4096, "k": 4096, "rank": 512, "dtype": "bf16"}

SIZE = {"bf16": 2, "f16": 2, "f32": 4}
WARPS, ROWS, PIECE = 4, 8, 8


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def launches(m: int, n: int, k: int, rank: int, dtype: str) -> list[Launch]:
    down = multiply(f"linear_factorized_down_{dtype}", m, rank, k, 4, dtype)
    return [down, multiply(f"linear_factorized_up_{dtype}", m, n, rank, 1, dtype)]


def multiply(kernel: str, m: int, outputs: int, k: int, warps: int, dtype: str) -> Launch:
    """`warps` warps work on one output."""
    rows = m / ceil(m, ROWS) / ROWS
    chunks, columns = ceil(m, ROWS), ceil(outputs, WARPS // warps)
    pieces = ceil(k, warps * 32 * PIECE)
    return Launch(
        kernel,
        "linear/factorized.cu",
        columns * chunks,
        32 * WARPS,
        shared=WARPS * ROWS * 4,
        reads=outputs * k * SIZE[dtype] + m * k * 4,
        again=(columns - 1) * m * k * 4 + (chunks - 1) * outputs * k * SIZE[dtype],
        writes=m * outputs * 4,
        loops=[Runs("for (int first = (warp % SHARE * 32 + lane) * PIECE;", pieces, {"FFMA": PIECE * ROWS})],
        shares=[
            # Rows that there are not, and factors that are not aligned.
            Share("load(values, x + int64_t(row) * p.k", to="sums[row] = fmaf", time=rows),
            Share("out[i] = first + i < count", time=0),
        ],
    )
