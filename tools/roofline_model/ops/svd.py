"""Batched truncated SVD: the launches of src/svd/gpu.rs for a tall matrix, cols <= 128, that the first rung solves.

The last chunk of rows is taken to be a whole one."""

from workload import Launch, Runs, Share

SHAPE = {"batch": 512, "rows": 4096, "cols": 128, "rank": 32, "dtype": "bf16"}

CHUNK, PARTIAL, TILE, THREADS, WARPS = 1024, 256, 64, 256, 8
SIZE = {"bf16": 2, "f16": 2, "f32": 4}
# Sweeps of cyclic Jacobi until f64 is diagonal: assumed, it depends on the spectrum.
SWEEPS = 8


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
        Launch("svd_solve", "svd/solve.cu", batch, shared=solve_shared(cols)[0], **idle),
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


def solve_shared(cols: int) -> tuple[int, bool]:
    """Bytes, and whether the vectors are among them."""
    least = 64 * 24 + 128 * 12 + 64 + triangle(cols + cols % 2) * 8
    fits = least + cols * cols * 8 <= 99 << 10
    return least + (cols * cols * 8 if fits else 0), fits


def solve(batch: int, rows: int, cols: int, rank: int) -> Launch:
    chunks, size, even = ceil(rows, CHUNK), triangle(cols), cols + cols % 2
    shared, fits = solve_shared(cols)
    return Launch(
        "svd_solve",
        "svd/solve.cu",
        batch,
        THREADS,
        shared=shared,
        reads=batch * chunks * size * 8,
        # A vector of every pair is read and written in every round, by one block, and stays in the L2 cache.
        again=batch * SWEEPS * (even - 1) * 2 * cols * cols * 8 if not fits else 0,
        writes=batch * cols * rank * 8,
        served="l2",
        loops=[
            Runs("for (int i = threadIdx.x; @ sum_chunks", size / THREADS, {"STS": 1}),
            Runs("for (int chunk = 0; @ sum_chunks", chunks, {"LDG": 1}),
            Runs("i < packed(at.even, 0); i += THREADS) at.gram[i] = 0;", cols % 2, {"STS": 1}),
            Runs("j += THREADS) gram[j] *= share;", size / THREADS, {"DMUL": 1}),
            Runs("i += THREADS) at.vectors[i] =", cols * cols / THREADS, {"ST": 1}),
            Runs("for (int sweep = 0;", SWEEPS),
            Runs("for (int round = 0;", even - 1),
            Runs("i < packed(pairs, 0); i += THREADS) {", triangle(even // 2) / THREADS, {"DFMA": 8}),
            Runs("for (int k = warp_index(); k < at.even / 2;", even / 2 / WARPS),
            Runs("for (int i = lane_index(); i < at.n; i += 32) turn(", cols / 32, {"DFMA": 2}),
            Runs("for (int j = 0; j < at.n; j++) @ sort(at)", cols, {"LDS": 1}),
            Runs("while (rank < p.columns &&", rank, {"LDS": 1}),
            Runs("for (int k = warp_index(); k < rank;", rank / WARPS),
            Runs("for (int i = lane_index(); i < n; i += 32)", cols / 32, {"F2F": 1}),
            Runs("j += 32) out[j] = sign * vector[j];", cols / 32, {"STG": 1}),
        ],
        shares=[Share("if (k < at.even / 2) {", to="}", warps=ceil(even // 2, 32) / WARPS)],
        expect={"BAR": WARPS * SWEEPS * (2 * (even - 1) + 1)},
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
