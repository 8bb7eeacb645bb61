"""Batched truncated SVD: the launches of src/svd/gpu.rs for a tall matrix, cols <= 128, that the first rung solves.

The last chunk of rows is taken to be a whole one."""

import math

from workload import Launch, Runs, Share

SHAPE = {"batch": 512, "rows": 4096, "cols": 128, "rank": 32, "dtype": "bf16"}

CHUNK, PARTIAL, TILE, THREADS, WARPS = 1024, 256, 64, 256, 8
SIZE = {"bf16": 2, "f16": 2, "f32": 4}
# Blocks of svd_rotate.
ROTATING = 8


def triangle(rows: int) -> int:
    return rows * (rows + 1) // 2


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def launches(batch: int, rows: int, cols: int, rank: int, dtype: str) -> list[Launch]:
    chunks = ceil(rows, CHUNK)
    idle = {"threads": THREADS, "active": 0.0}
    wide_tile = TILE * 128 * 4
    return [
        gram(dtype, batch, rows, cols),
        solve(batch, rows, cols, rank),
        project(dtype, batch, rows, cols, rank),
        gram("f32", batch, rows, rank),
        finish(batch, rows, cols, rank),
        # The second rung has nothing to do.
        Launch(f"svd_gram_wide_{dtype}", "svd/gram.cu", batch * chunks, shared=wide_tile, **idle),
        Launch("svd_solve_f64", "svd/solve.cu", batch, shared=solve_shared(cols, rank, 8), **idle),
        Launch("svd_rotate", "svd/rotate.cu", min(batch, ROTATING), shared=64 * 24 + 128 * 12, **idle),
        Launch(f"svd_project_wide_{dtype}", "svd/project.cu", batch * chunks, shared=512 + cols * 512 + wide_tile, **idle),
        Launch("svd_gram_wide_f32", "svd/gram.cu", batch * chunks, shared=wide_tile, **idle),
        Launch("svd_finish", "svd/finish.cu", batch, shared=finish_shared(rank), **idle),
        Launch("svd_orthogonalize", "svd/finish.cu", batch, shared=finish_shared(rank), **idle),
        mix(batch, rows, rank),
    ]


def gram(dtype: str, batch: int, rows: int, columns: int) -> Launch:
    chunks, size, width = ceil(rows, CHUNK), triangle(columns), ceil(columns, 16) * 16
    tile_rows = 128 // SIZE[dtype]
    squares, busiest = triangle(width // 16), max(squares_of(warp, width // 16) for warp in range(WARPS))
    # In f32 the loop over a tile is unrolled, and each product made of three.
    k, products, inner = (8, 6, 2) if dtype == "f32" else (16, 2, 7)
    add = [] if dtype == "f32" else [Runs("for (int k = 0; k < TILE_ROWS<T>; k += 16)", tile_rows // k, {"HMMA": 2})]
    in_use = {"time": busiest / 5, "warps": squares / busiest / WARPS}
    return Launch(
        f"svd_gram_{dtype}",
        "svd/gram.cu",
        batch * chunks,
        THREADS,
        shared=ceil(size, 2) * 16 + 128 * 8 + 128 * 136,
        reads=batch * rows * columns * SIZE[dtype],
        writes=batch * chunks * size * 8,
        loops=[
            Runs("i += THREADS) triangle[i] = 0;", size / THREADS, {"STS": 1}),
            Runs("for (int partial = start;", CHUNK // PARTIAL),
            Runs("for (int row = partial;", PARTIAL // tile_rows, {"loops": inner}),
            Runs("for (int major @ load_tile", tile_rows / WARPS),
            Runs("for (int minor @ load_tile", width / 32, {"LDG": 1}),
            *add,
            Runs("for (int i = half;", tile_rows // 2, {"LDS": 1}),
            Runs("i += THREADS) out[i] = triangle[i];", size / THREADS, {"STG": 1}),
        ],
        shares=[
            Share("add_products<T>(sums[i], tile, square(i))", **in_use),
            Share("drain(sums[i], triangle, square(i), columns)", **in_use),
            Share("for (int i = half;", to="}", warps=ceil(columns, 32) / 4),
        ],
        expect={"HMMA": squares * CHUNK // k * products},
    )


def squares_of(warp: int, squares: int) -> int:
    """Squares in use that a warp of svd_gram has in its two rows of squares."""
    lower = 7 - warp // 2
    mine = range(warp % 2, 9, 2)
    return sum((lower if turn <= lower else warp // 2) < squares for turn in mine)


def solve_shared(cols: int, rank: int, size: int) -> int:
    least = (8 * 128 + rank) * size + max(64 * cols, triangle(cols)) * size + 32 * cols
    vectors = rank * (cols | 1) * size
    return least + (vectors if least + vectors <= 99 << 10 else 0)


def solve(batch: int, rows: int, cols: int, rank: int) -> Launch:
    chunks, size, pieces = ceil(rows, CHUNK), triangle(cols), ceil(cols, 32)
    steps = range(1, cols)
    mean = lambda numbers: sum(numbers) / len(numbers)
    lanes = max(THREADS // 2 ** math.ceil(math.log2(rank)), 1)
    narrowings = math.ceil(math.log((0.5 + 2**-8) * 2**26) / math.log(lanes + 1))
    one = 1 / WARPS
    return Launch(
        "svd_solve_f32",
        "svd/solve.cu",
        batch,
        THREADS,
        shared=solve_shared(cols, rank, 4),
        reads=batch * chunks * size * 8,
        # Reflections are read back by the block that wrote them.
        again=batch * size * 4,
        writes=batch * (cols * rank * 8 + size * 4),
        generic="shared",
        loops=[
            Runs("i < n; i += THREADS) trace +=", 1),
            Runs("for (int chunk = 0; chunk < chunks; chunk++) sum +=", chunks, {"LDG": 1}),
            Runs("t += THREADS) at.v[t] = 0", 128 / THREADS, {"STS": 2}),
            Runs("for (int i = at.n - 1; i > 0; i--)", cols - 1),
            Runs("j += 32) at.reflections[packed(i, j)] =", [ceil(i, 32) for i in steps], {"STG": 1}),
            Runs("t += 32) product += at.q[t]", 4, {"LDS": 2}),
            Runs("t += 32) { @ next_reflection<Stored>(at, 0)", 4, {"STS": 2}),
            Runs("for (int j = lane_index(); j < at.n; j += 32) {", pieces, {"FADD": 4}),
            Runs("for (int j = threadIdx.x; j < at.n;", cols / THREADS, {"STS": 3}),
            Runs("while (lanes > 1 &&", math.log2(32 / min(lanes, 32)), {"ISETP": 2}),
            Runs("for (int first = 0; first < count;", ceil(rank * lanes, THREADS)),
            Runs("while (width > Limits<Real>::RESOLUTION)", narrowings),
            Runs("for (int k = 1; k < at.n; k++)", cols - 1, {"FADD": 1}),
            Runs("while (rank < p.columns &&", rank, {"LDS": 1}),
            Runs("i < count * blocks; i += THREADS)", rank * ceil(cols, 4) / THREADS, {"ST": 4}),
            Runs("for (int step = 0; step < INVERSE_STEPS;", 2, {"loops": 6}),
            Runs("for (int vector = threadIdx.x;", ceil(rank, 32)),
            Runs("for (int k = 0; k + 1 < at.n; k++)", cols - 1, {"ST": 4}),
            Runs("for (int k = at.n - 2; k >= 0; k--)", cols - 1, {"ST": 1}),
            Runs("for (int i = warp_index(); i < count;", rank / WARPS),
            Runs("k += 32) largest = fmax(", pieces, {"LD": 1}),
            Runs("k < at.n; k += 32) { @ normalize(at, count)", pieces, {"LD": 1}),
            Runs("k += 32) x[k] = x[k] / largest", pieces, {"ST": 1}),
            Runs("for (int j = 0; j < count; j++)", rank),
            Runs("k += 32) squares += x[k] * x[k];", pieces, {"FFMA": 1}),
            Runs("for (int i = j + 1 + warp_index();", [ceil(rank - 1 - j, WARPS) for j in range(rank)]),
            Runs("k += 32) product += x[k] * y[k];", pieces, {"FFMA": 1}),
            Runs("k += 32) y[k] -= product * x[k];", pieces, {"ST": 1}),
            Runs("k < at.n; k += 32) {", pieces, {"LD": 3}),
            Runs("i < packed(n, 0); i += THREADS) memory.eigen.factors", size / THREADS, {"LDG": 1}),
            Runs("for (int first = 0; first < rank;", ceil(rank, 32)),
            Runs("for (int i = 2; i < n; i++)", cols - 2, {"SHFL": 3}),
            Runs("for (int i = threadIdx.x; i < rank;", rank / THREADS, {"STG": 1}),
        ],
        shares=[
            # One warp at a time makes the next reflection, and another one keeps it.
            Share("if (warp_index() == i % WARPS) next_reflection", warps=one),
            Share("if (warp_index() == (i + WARPS / 2) % WARPS) {", to="}", warps=one),
            Share("if (warp_index() == 0) next_reflection", warps=one),
            # What is left of the matrix, by squares of 16.
            Share("const Real v_row =", time=mean([ceil(i, 16) / 8 for i in steps])),
            Share("const Real value = entries[a][b]", to="at.row[x", time=mean([ceil(i, 16) ** 2 / 64 for i in steps])),
            Share("vector < count && warp_index() == 0", warps=one),
            # A second pass, on the same line, is not needed.
            Share("if (orthogonalize(at, count)) orthogonalize", time=0.5),
            Share("here[c] = j < i ?", to="product += here[c]", time=mean([ceil(i, 8) / 16 for i in steps])),
            Share("x[c] -= product * here[c]", time=mean([ceil(i, 8) / 16 for i in steps])),
        ],
    )


def project(dtype: str, batch: int, rows: int, cols: int, rank: int) -> Launch:
    chunks, parts = ceil(rows, CHUNK), {"f32": 1, "f16": 2, "bf16": 3}[dtype]
    k, products = (8, 12) if dtype == "f32" else (16, 4 * parts)
    step = "for (int k = 0; k < width; k += 8)" if dtype == "f32" else "for (int k = 0; k < width; k += 16)"
    halves = min(ceil(rank, 32), 2)
    return Launch(
        f"svd_project_{dtype}",
        "svd/project.cu",
        batch * chunks * ceil(rank, TILE),
        THREADS,
        shared=TILE * 4 + TILE * (128 * SIZE[dtype] + 16) * (1 + parts),
        reads=batch * (rows * cols * SIZE[dtype] + cols * rank * 8),
        again=batch * (chunks - 1) * cols * rank * 8,
        writes=batch * rows * rank * 4,
        loops=[
            Runs("for (int k = warp_index(); k < TILE_COLUMNS;", TILE / WARPS, {"loops": 1}),
            Runs("for (int i = lane_index(); i < width;", ceil(cols, 16) / 2, {"LDG": 1}),
            Runs("for (int tile_row = start;", CHUNK // TILE),
            Runs("for (int major @ load_tile", TILE / WARPS),
            Runs("for (int minor @ load_tile", ceil(cols, 16) / 2, {"LDG": 1}),
            Runs(step, ceil(cols, k), {"HMMA": products}),
        ],
        shares=[Share("Sums sums = {};", to="(sums.large[j][e]", warps=halves / 2)],
        expect={"HMMA": 4 * halves * CHUNK // TILE * ceil(cols, k) * products},
    )


def finish_shared(rank: int) -> int:
    return 3 * 128 * 8 + 8 * 8 + 128 * 4 + 8 * 4 + triangle(rank) * 8


def finish(batch: int, rows: int, cols: int, rank: int) -> Launch:
    chunks, size = ceil(rows, CHUNK), triangle(rank)
    busy = ceil(rank, 32) / WARPS
    return Launch(
        "svd_finish",
        "svd/finish.cu",
        batch,
        THREADS,
        shared=finish_shared(rank),
        reads=batch * (chunks * size + cols * rank + rank) * 8,
        writes=batch * (cols * rank + rank * rank + rank) * 4,
        loops=[
            Runs("for (int i = threadIdx.x; @ sum_chunks", size / THREADS, {"STS": 1}),
            Runs("for (int chunk = 0; @ sum_chunks", chunks, {"LDG": 1}),
            Runs("for (int k = 0; k < at.rank; k++) @ cholesky(at)", rank),
            Runs("for (int l = 0; l < k; l++) left -=", range(rank), {"DFMA": 1}),
            Runs("for (int i = warp_index(); i < at.rank;", rank / WARPS),
            Runs("for (int l = lane_index(); l < i;", [ceil(i, 32) for i in range(rank)], {"DFMA": 1}),
            Runs("for (int k = 0; k < at.rank; k++) @ left_out(p, at)", rank, {"DADD": 1}),
            Runs("for (int k = at.rank - 1; k >= 0; k--)", rank),
            Runs("for (int l = k + 1; l <= i; l++)", range(rank), {"DFMA": 1}),
            Runs("for (int j = 0; j < at.rank; j++) place", rank, {"LDS": 1}),
            Runs("for (int k = threadIdx.x; k < p.columns;", 1, {"STG": 1}),
            Runs("for (int row = warp_index(); row < p.width;", cols / WARPS),
            Runs("for (int k = lane_index(); k < p.columns;", rank / 32, {"STG": 1}),
            Runs("for (int row = warp_index(); row < at.rank;", rank / WARPS),
            Runs("for (int k = lane_index(); k < at.rank;", rank / 32, {"STG": 1}),
        ],
        shares=[
            Share("if (i >= k && i < at.rank) {", to="if (i == k)", warps=busy),
            Share("x -= at.moments[packed(i, l)]", warps=busy),
            Share("for (int k = threadIdx.x; k < p.columns;", to="}", warps=busy),
            Share("fmax(left_out(p, at)", warps=1 / WARPS),
        ],
    )


def mix(batch: int, rows: int, rank: int) -> Launch:
    return Launch(
        "svd_mix",
        "svd/arrange.cu",
        batch * ceil(rows, CHUNK),
        THREADS,
        shared=rank * 512 + TILE * 129 * 4,
        reads=batch * (rows * rank + rank * rank) * 4,
        again=batch * (ceil(rows, CHUNK) - 1) * rank * rank * 4,
        writes=batch * rows * rank * 4,
        loops=[
            Runs("for (int row = start @ fill(p, start, end, state, rank)", 0),
            Runs("for (int row = warp_index(); row < rank;", rank / WARPS, {"LDG": 4}),
            Runs("for (int tile_row = start;", CHUNK // TILE),
            Runs("for (int major @ load_tile", TILE / WARPS),
            Runs("for (int minor @ load_tile", rank / 32, {"LDG": 1}),
            Runs("for (int k = 0; k < rank; k++)", rank, {"FFMA": 32}),
        ],
        shares=[Share("const float y = mix[k * MAX_WIDTH", to="sums[i][j] += x[i] * y", time=ceil(rank, 16) / 8)],
    )
