"""Batched truncated SVD: the launches of src/svd/gpu/narrow.rs for a tall matrix, 128 columns, that the first rung solves.

The last chunk of rows is taken to be a whole one, and rows of A to be aligned. Factors in f32 are taken to be not quite
orthonormal, as they are when singular values are apart, and those in 16 bits to be near enough."""

import math

from sources import Refusal
from workload import Launch, Runs, Share

SHAPE = {
    "batch": 512,
    "rows": 4096,
    "cols": 128,
    "rank": 32,
    "dtype": "bf16",
    "output": "usv",
    "factors": "f32",
}

CHUNK, PARTIAL, TILE, WIDTH, THREADS, WARPS = 1024, 256, 64, 128, 256, 8
SIZE = {"bf16": 2, "f16": 2, "f32": 4}
# Blocks of svd_rotate, and matrices from which on a block sums up all chunks of one.
ROTATING, ENOUGH = 8, 128
# Aligned rows are copied, and not read by elements.
UNALIGNED = [Runs("for (int major @ load_tile", 0)]
ALIGNED = [Share("load_tile<Rows, Stride>(tile, a, row, width);", time=0)]


def triangle(rows: int) -> int:
    return rows * (rows + 1) // 2


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def nested(outer: Runs, *inner: Runs) -> list[Runs]:
    """A loop and those in it, which are not looked at where it never runs."""
    return [outer, *(inner if outer.trips else [])]


def launches(batch: int, rows: int, cols: int, rank: int, dtype: str, output: str, factors: str) -> list[Launch]:
    if cols != WIDTH or rank > TILE or rank % 16 or output not in ("usv", "latents"):
        raise Refusal("svd: known are --cols 128, --rank 16, 32, 48 and 64, --output usv and latents")
    chunks = ceil(rows, CHUNK)
    sums = 1 if batch >= ENOUGH else chunks
    idle = {"threads": THREADS, "active": 0.0}
    wide_tile = TILE * WIDTH * 4
    wide_project = TILE * 8 + cols * TILE * 8 + wide_tile
    return [
        gram(dtype, batch, rows, cols, sums),
        solve(batch, cols, rank, sums),
        project(dtype, batch, rows, cols, rank, output, factors),
        # The second rung has nothing to do.
        Launch(f"svd_gram_wide_{dtype}", "svd/gram_wide.cu", batch * sums, shared=wide_tile, **idle),
        Launch("svd_solve_f64", "svd/solve_f64.cu", batch, shared=solve_shared(cols, rank, 8), **idle),
        Launch("svd_rotate", "svd/rotate.cu", min(batch, ROTATING), shared=64 * 24 + WIDTH * 12, **idle),
        Launch(f"svd_project_wide_{dtype}", "svd/project_wide.cu", batch * chunks, shared=wide_project, **idle),
        Launch("svd_gram_wide_f32", "svd/gram_wide.cu", batch * chunks, shared=wide_tile, **idle),
        Launch("svd_finish", "svd/finish.cu", batch, shared=finish_shared(rank), **idle),
        Launch("svd_orthogonalize", "svd/finish.cu", batch, shared=finish_shared(rank), **idle),
        Launch("svd_mix", "svd/arrange.cu", batch * chunks, shared=mix_shared(rank), **idle),
    ]


def row_pieces(rows: int) -> list[int]:
    """Pieces of 32 that the rows of a triangle are in."""
    return [ceil(i + 1, 32) for i in range(rows)]


def gram(dtype: str, batch: int, rows: int, cols: int, sums: int) -> Launch:
    chunks, size = ceil(rows, CHUNK), triangle(cols)
    tile_rows, squares = 128 // SIZE[dtype], triangle(cols // 16)
    # In f32 each product is made of three.
    k, products = (8, 6) if dtype == "f32" else (16, 2)
    # Warps have four squares, or five.
    parts = {(q, right): 5 if right == (q > 0) else 4 for q in range(4) for right in (False, True)}
    times = "for (int k = 0; k < TILE_ROWS<T>; k += Factor::ROWS)"
    return Launch(
        f"svd_gram_{dtype}",
        "svd/gram_f32.cu" if dtype == "f32" else "svd/gram.cu",
        batch * sums,
        THREADS,
        shared=4 * WIDTH * 8 + 3 * 128 * (WIDTH + 8) + size * 4,
        reads=batch * rows * cols * SIZE[dtype],
        writes=batch * sums * size * 8,
        loops=[
            Runs("for (int chunk = chunk_index(); chunk * SVD_CHUNK_ROWS < p.rows;", chunks / sums),
            Runs("for (int stage = 0; stage + 1 < Stages;", 2),
            *UNALIGNED,
            Runs("for (int row = start; row < end; row += TILE_ROWS<T>)", CHUNK // tile_rows, {"loops": 16}),
            *[
                Runs(f"{times} @ add_products_of<true> @ work(Part<{q}, {str(right).lower()}>", tile_rows // k, {"HMMA": many * products})
                for (q, right), many in parts.items()
            ],
            Runs(f"{times} @ add_products_of<false>", 0),
            Runs("for (int row = group; row < Rows;", tile_rows // 4, {"FFMA": 2}),
            Runs("for (int start = threadIdx.x; start <= last;", size / THREADS / 8, {"STG": 8}),
        ],
        shares=[
            *ALIGNED,
            # The first chunk of a block has nothing to add to.
            Share("&& !first) diagonal = out", time=1 - sums / chunks),
            Share("before[e] = out[min(start", time=1 - sums / chunks),
            Share("with_part([&](auto part) { drain(", time=tile_rows / PARTIAL, guards=True),
            *[
                Share(text, warps=squares / 40)
                for text in (
                    "if (HasLong) add_product(",
                    "if (P::is_short(j)) add_product(",
                    "const bool inside = !OnDiagonal",
                    "rows[below][right] = before[e] + sum;",
                )
            ],
        ],
        expect={"HMMA": squares * rows / sums // k * products},
    )


def solve_shared(cols: int, rank: int, size: int) -> int:
    head = (8 * WIDTH + rank) * size + 32 * cols
    everything = head + (triangle(cols) + 64 * cols + rank * (cols | 1)) * size
    return everything if everything <= 99 << 10 else head + max(64 * cols, triangle(cols)) * size


def solve(batch: int, cols: int, rank: int, sums: int) -> Launch:
    size, pieces = triangle(cols), ceil(cols, 32)
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
        reads=batch * sums * size * 8,
        # Reflections are read back by the block that wrote them.
        again=batch * size * 4,
        writes=batch * (cols * rank * 8 + size * 4),
        generic="shared",
        loops=[
            Runs("i < n; i += THREADS) trace +=", 1),
            Runs("for (int chunk = 0; chunk < chunks; chunk++) sum += @ trace +=", sums, {"LDG": 1}),
            Runs("for (int chunk = 0; chunk < chunks; chunk++) sum +=", sums if sums > 1 else 0, {"LDG": 1}),
            Runs("t += THREADS) at.v[t] = 0", WIDTH / THREADS, {"STS": 2}),
            Runs("for (int i = at.n - 1; i > 0; i--)", cols - 1),
            Runs("for (int j = lane_index(); j < i; j += 32) at.reflections", [ceil(i, 32) for i in steps], {"LDS": 1}),
            Runs("for (int j = lane_index(); j < at.n; j += 32) {", pieces, {"FADD": 4}),
            Runs("for (int j = threadIdx.x; j < round_up(at.n", cols / THREADS, {"STS": 3}),
            Runs("while (lanes > 1 &&", math.log2(32 / min(lanes, 32)), {"ISETP": 2}),
            Runs("for (int first = 0; first < count; first += THREADS / lanes", ceil(rank * lanes, THREADS)),
            Runs("while (width > Limits<Real>::RESOLUTION)", narrowings),
            Runs("for (int first = 0; first < at.n; first += AHEAD)", ceil(cols, 4), {"FADD": 4}),
            Runs("while (rank < p.columns &&", rank, {"LDS": 1}),
            Runs("i++) left -= values[i] * share", 0),
            Runs("i < p.columns; i += THREADS) {", 0),
            Runs("i < count * blocks; i += THREADS)", rank * ceil(cols, 4) / THREADS, {"ST": 4}),
            Runs("for (int step = 1; step <= MOST_STEPS;", 1, {"loops": 4}),
            Runs("for (int pass = 0; pass < MOST_PASSES", 1),
            Runs("for (int vector = threadIdx.x;", ceil(rank, 32), {"loops": 4}),
            Runs("for (int first = 0; first < last; first += AHEAD)", (cols - 1) / 4, {"MUFU": 4}),
            Runs("for (int first = last - 1; first >= 0;", (cols - 1) / 4, {"ST": 4}),
            Runs("for (int i = warp_index(); i < count;", rank / WARPS),
            Runs("for (int i = lane_index(); i < count; i += 32) exact &=", ceil(rank, 32), {"LDS": 1}),
            Runs("for (int first = 0; first < count; first += TOGETHER", ceil(rank, 32), {"loops": 5}),
            Runs("for (int j = 0; j < first; j++) panel.remove(j);", 0),
            Runs("for (int j = first + i * WARPS;", min(rank, WARPS), {"SHFL": 20}),
            Runs("for (int k = lane_index(); k < at.n; k += 32) { @ are_exact", pieces, {"FFMA": 1}),
            Runs("i < packed(n, 0); i += THREADS) memory.eigen.factors", 0),
            Runs("for (int first = 0; first < rank;", ceil(rank, 32), {"loops": 16}),
            Runs("for (int i = first; i <= end; i++)", 8, {"SHFL": 3}),
            Runs("for (int i = threadIdx.x; i < rank;", rank / THREADS, {"STG": 1}),
        ],
        shares=[
            # One warp at a time makes the next reflection, and another one keeps it.
            Share("if (warp_index() == i % WARPS) {", to="}", warps=one),
            Share("keep_reflection(at, i + 1);", warps=one),
            Share("next_reflection(at, 0);", to="keep_reflection(at, 1);", warps=one),
            # What is left of the matrix, by squares of 16: the version for all of it is taken, with the mean of the work of
            # those for less. It loads more of the vectors than they do, and is found by fewer comparisons.
            Share("return step_within<Squares - 1>(matrix, at, count);", time=0),
            Share("entries[a][b] -= v_row", to="next[b];", time=mean([ceil(i, 16) ** 2 / 64 for i in steps])),
            Share("show(at, a, last);", time=1 / 8, warps=one),
            Share("show(at, Squares - 1, count - 1);", warps=one),
            Share("vector < count && warp_index() == 0", warps=one),
            Share(f"return partials.{'entry' if sums == 1 else 'only'}(i, j)", time=0),
            # Whose turn it is shows its vector.
            Share("if (j % WARPS == warp_index()) {", to="}", warps=one),
        ],
    )


def project(dtype: str, batch: int, rows: int, cols: int, rank: int, output: str, factors: str) -> Launch:
    """The last block of each matrix, one of `chunks`, judges it, and mixes what is not orthonormal."""
    chunks, size, blocks = ceil(rows, CHUNK), SIZE[dtype], rank // 16
    tile_rows, skewed = 128 // size, output == "usv" and factors == "f32"
    k, products, dealt = (8, 6, 4) if dtype == "f32" else (16, 4, 2)
    # Blocks of 16 columns are dealt out to so many warps; those that have any make one, or two.
    busy = min(blocks, dealt)
    each = 1 if blocks <= dealt else TILE // 16 // dealt
    twice = rows / chunks if skewed else 0
    mixed = batch * rows * rank * SIZE[factors] if skewed else 0
    # Of moments a warp has a row of squares, for some rows of a tile.
    across = 2 if rank <= 32 else 4
    groups = min(WARPS // across, tile_rows // 16)
    drained = min(groups * PARTIAL, CHUNK)
    made = CHUNK // 16 * busy * each * cols // k * products
    moments = CHUNK // 16 * triangle(blocks) * 6
    multiplied = f"for (int k = 0; k < width; k += {k}) @ make<"
    return Launch(
        f"svd_project_{dtype}",
        "svd/project.cu",
        batch * chunks,
        THREADS,
        shared=project_shared(size, rank),
        # What is mixed is still in the L2 cache, but not to be written again.
        reads=batch * (rows * cols * size + cols * rank * 8),
        again=mixed + batch * ((chunks - 1) * cols * rank * 8 + 2 * chunks * triangle(rank) * 8 + rank * rank * 4),
        writes=batch * (rows * rank + cols * rank) * SIZE[factors] + mixed,
        loops=[
            *UNALIGNED,
            Runs("for (int k = warp_index(); k < columns;", rank / WARPS, {"LDG": 4}),
            Runs("for (int row = start; row < end; row += ROWS)", CHUNK // tile_rows, {"loops": 3 if dtype == "f32" else 5 + (each > 1)}),
            Runs(f"{multiplied}1>(p", cols // k if each == 1 else 0, {"HMMA": products}),
            *([] if dtype == "f32" else [Runs(f"{multiplied}BLOCKS<T>>(p", cols // k if each > 1 else 0, {"HMMA": 2 * products})]),
            *([Runs("for (int k = warp_index() / across() * Part::ROWS;", tile_rows // 16 / groups, {"HMMA": 24})] if tile_rows > 32 else []),
            Runs("for (int turn = 0; turn < groups();", groups, {"BAR": 1}),
            Runs("for (int start = threadIdx.x; start <= last;", triangle(rank) / THREADS / 8, {"STG": 8}),
            *judging(cols, rank, chunks, output, skewed, 1 / chunks),
            *mixing(rank, twice),
        ],
        shares=[
            *ALIGNED,
            Share("make<1>(p, tile,", time=each == 1),
            Share("make<BLOCKS<T>>(p, tile,", time=each > 1),
            Share("multiply<Blocks>(products, tile,", warps=busy / dealt),
            Share("store<true, Blocks>(p", time=factors == "f32"),
            Share("store<false, Blocks>(p", time=factors != "f32"),
            Share("if (block_column<T>(block) >= columns) break;", to="left - column, p.columns %", warps=blocks / each / dealt),
            Share("own.load(high, k, q * 16);", to="own_low.load(", warps=blocks * groups / WARPS),
            # Squares of the longest row, and how many of them the mean row has.
            Share("if (j > q) break;", to="add_product(sums[j], own, other)", time=blocks / 4, warps=groups * triangle(blocks) / blocks / WARPS),
            Share("crossed.drain_all(", time=tile_rows / drained, guards=True),
            Share("if (q < j) break;", to="drain(sums[j], triangle,", time=blocks / 4, warps=triangle(blocks) / blocks / WARPS),
            *mixing_shares(rank),
            # Odd numbers of columns, and 16 bits.
            Share("const auto entry = [&](int k)", to="return {entry(column)", time=0),
            Share("if (count > 0) store_entry(", to="if (count > 1) store_entry(", time=0),
        ],
        expect={"HMMA": made + moments + twice / 16 * blocks * blocks * 12},
    )


def project_shared(size: int, rank: int) -> int:
    parts, rows, row = 1 if size == 4 else 2, 128 // size, WIDTH * size + 16
    moments = rows * (TILE + 8) * 4 + triangle(rank) * 4
    projecting = TILE * 4 + rows // 16 * TILE * 8 + parts * rank * row + 2 * rows * row + moments
    return max(projecting, finish_shared(rank), mix_shared(rank))


def judging(cols: int, rank: int, chunks: int, output: str, skewed: bool, share: float) -> list[Runs]:
    """What this share of blocks makes of moments; columns that are not orthonormal are factorized. Trips say what a
    block does on average: the compiler has lost the calls that shares would be named by."""
    compared, factorized = share * rank if output == "usv" else 0, share * rank if skewed else 0
    return [
        Runs("for (int i = threadIdx.x; @ sum_chunks", share * triangle(rank) / THREADS, {"STS": 1}),
        Runs("chunk++) sum += partials", chunks, {"LDG": 1}),
        *nested(
            Runs("for (int i = warp_index(); i < at.rank; @ is_orthonormal", compared / WARPS),
            Runs("for (int j = lane_index(); j <= i; j += 32) near", row_pieces(rank), {"DADD": 1}),
        ),
        Runs("for (int i = threadIdx.x; i < at.rank; i += THREADS) shared.columns", factorized / THREADS, {"STS": 1}),
        *nested(
            Runs("for (int k = 0; k < at.rank; k++) {", factorized),
            Runs("for (int i = k + 1 + warp_index();", [ceil(rank - 1 - k, WARPS) for k in range(rank)]),
            Runs("for (int j = lane_index(); j <= i; j += 32) {", row_pieces(rank), {"DFMA": 1}),
        ),
        *nested(
            Runs("for (int i = warp_index(); i < at.rank; @ invert(at)", factorized / WARPS),
            Runs("for (int j = lane_index(); j <= i; j += 32) at.moments", row_pieces(rank), {"DMUL": 1}),
        ),
        Runs("for (int i = lane_index(); i < at.rank; i += 32) {", factorized / 32, {"DFMA": 1}),
        Runs("for (int k = lane_index(); k < at.rank; @ left_out(p, at)", share * ceil(rank, 32), {"DADD": 1}),
        Runs("for (int j = 0; j < at.rank; j++) place", share * rank, {"LDS": 1}),
        Runs("for (int k = threadIdx.x; k < p.columns", share, {"STG": 1}),
        Runs("for (int k = lane_index(); k < p.columns;", share * ceil(rank, 32)),
        Runs("for (int first = warp_index() * TOGETHER;", cols / WARPS / 8, {"LDG": 8}),
        Runs("for (int row = warp_index(); row < at.rank;", share * rank / WARPS),
        Runs("for (int k = lane_index(); k < at.rank; @ write(p, at", ceil(rank, 32), {"STG": 1}),
    ]


def finish_shared(rank: int) -> int:
    return 5 * WIDTH * 8 + 8 * 8 + WIDTH * 4 + 8 * 4 + triangle(rank) * 8


def mixing(rank: int, rows: float) -> list[Runs]:
    """A product of so many rows with what makes their columns orthonormal."""
    few = rank <= 32
    versions = [("32>(p", few, 48), ("SVD_PROJECTED>(p", not few, 96)]
    return [
        runs
        for version, taken, hmma in versions
        for runs in (
            Runs(f"for (int i = threadIdx.x; i < width * width; @ mix_rows<{version}", rank * rank / THREADS * taken * (rows > 0), {"LDG": 1}),
            *nested(
                Runs(f"for (int row = first_row; @ mix_rows<{version}", rows / 16 / WARPS * taken),
                Runs(f"for (int first = 0; first < width; @ mix_rows<{version}", ceil(rank, 32), {"HMMA": hmma}),
            ),
        )
    ]


def mixing_shares(rank: int) -> list[Share]:
    few, blocks = rank <= 32, rank // 16
    kept, pairs = 2 if few else 4, blocks / 2 / ceil(blocks, 2)
    return [
        Share("mix_rows<32>(p", time=few),
        Share("mix_rows<SVD_PROJECTED>(p", time=not few),
        Share("const float4 four = load_four(p", to="row + half * 8 < end);", time=blocks / kept),
        Share("if (block * 16 >= rank) break;", to="a[step], b[i].high[step * 2]", time=blocks / kept),
        Share("if (first + tile * 8 >= width) break;", to="a[step], b[i].high[step * 2]", time=pairs),
        # What is mixed is stored in f32.
        Share("const int column = first + tile * 8;", to="p.columns - column, p.columns % 2", time=0),
    ]


def mix_shared(rank: int) -> int:
    return 2 * rank * (rank | 16) * 4
