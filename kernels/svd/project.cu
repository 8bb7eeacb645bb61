// tall = A V / s, by chunks of rows on tensor cores. Where one block makes all columns, it sums up their moments as well, and
// the last block of a matrix finishes it.
#define LEAST_BLOCKS 2
#include "device/reduce.cuh"
#include "svd/finish.cuh"
#include "svd/mix.cuh"
#include "svd/scales.cuh"
#include "svd/tiles.cuh"

constexpr int STAGES = 2;
constexpr int PARTIAL_ROWS = 256;  // sums in f32 are no longer than this
// Rows far enough apart that neighbouring ones fall into other banks.
template <class T> constexpr int STRIDE = MAX_WIDTH + 16 / sizeof(T);
constexpr int RESULT_STRIDE = SVD_PROJECTED + 8;
// Entries of columns of length one are magnified for f16, so that small ones keep their bits. Where one would become
// infinite its column is far from that length, and moments that are not finite are refused.
constexpr float MAGNIFIED = 512;
template <class T> constexpr int TILE_ROWS = 128 / sizeof(T);
// Parts that an entry of V is the sum of: 16 of its bits, or 22, and what that leaves is small beside the least tail that
// this rung is trusted with.
template <class T> constexpr int PARTS = sizeof(T) == 4 ? 1 : 2;

// Columns of V, one in each row, split into parts, with zeros up to MAX_WIDTH.
template <class T>
__device__ __forceinline__ void load_basis(T* parts, const double* basis, int n, int count, int columns) {
    constexpr int PIECES = MAX_WIDTH / 32;
#pragma unroll 2  // unrolled further, it spills
    for (int k = warp_index(); k < columns; k += WARPS) {
        const double* const from = basis + max(min(k, count - 1), 0) * n;
        double x[PIECES];
#pragma unroll
        for (int c = 0; c < PIECES; c++) x[c] = from[min(lane_index() + c * 32, n - 1)];
#pragma unroll
        for (int c = 0; c < PIECES; c++) {
            const int i = lane_index() + c * 32;
            // By a mask: under a condition reads would wait for each other.
            const uint32_t inside = k < count && i < n ? ~0u : 0;
            float left = __uint_as_float(__float_as_uint(float(x[c])) & inside);
#pragma unroll
            for (int part = 0; part < PARTS<T>; part++) {
                const T rounded = from_float<T>(left);
                parts[(part * columns + k) * STRIDE<T> + i] = rounded;
                left -= to_float(rounded);
            }
        }
    }
}

// Large products, and the small ones that would be lost among them, of 16 rows with 16 columns.
struct Products {
    float large[2][4], small[2][4];
};

// Warps stand in rows of 16 rows of a tile and take blocks of 16 columns in turns.
template <class T> constexpr int WARP_ROWS = TILE_ROWS<T> / 16;
template <class T> constexpr int WARP_COLUMNS = WARPS / WARP_ROWS<T>;
template <class T> constexpr int BLOCKS = SVD_PROJECTED / 16 / WARP_COLUMNS<T>;
template <class T> __device__ __forceinline__ int block_column(int block) {
    return (warp_index() / WARP_ROWS<T> + block * WARP_COLUMNS<T>) * 16;
}

// What one product takes of a tile, and of V for so many blocks of columns.
template <int Blocks> struct Taken {
    uint32_t a[4], large[Blocks][4], small[Blocks][4];

    template <class T> __device__ __forceinline__ void load(const T* tile, const T* parts, int columns, int k) {
        const int lane = lane_index(), row = warp_index() % WARP_ROWS<T> * 16;
        ldmatrix_x4(a, tile + (row + (lane & 15)) * STRIDE<T> + k + (lane >> 4) * 8);
#pragma unroll
        for (int block = 0; block < Blocks; block++) {
            const int column = min(block_column<T>(block), columns - 16);
            const T* from = parts + (column + (lane & 7) + (lane >> 4) * 8) * STRIDE<T> + (lane >> 3 & 1) * 8 + k;
            ldmatrix_x4(large[block], from);
            ldmatrix_x4(small[block], from + columns * STRIDE<T>);
        }
    }
};

// Adds the products of a tile with V in the first Blocks blocks of each warp.
template <int Blocks, class T>
__device__ __forceinline__ void multiply(Products (&products)[BLOCKS<T>], const T* tile, const T* parts, int columns, int width) {
    if (block_column<T>(0) >= columns) return;
    constexpr bool AHEAD = Blocks == 1;  // for more there are no registers
    Taken<Blocks> next;
    if constexpr (AHEAD) next.load(tile, parts, columns, 0);
#pragma unroll 2
    for (int k = 0; k < width; k += 16) {
        if constexpr (!AHEAD) next.load(tile, parts, columns, k);
        const Taken<Blocks> now = next;
        if constexpr (AHEAD) next.load(tile, parts, columns, min(k + 16, width - 16));
#pragma unroll
        for (int block = 0; block < Blocks; block++) {
            const auto &large = now.large[block], &small = now.small[block];
            mma_m16n8k16(products[block].large[0], now.a, large[0], large[1], T{});
            mma_m16n8k16(products[block].large[1], now.a, large[2], large[3], T{});
            mma_m16n8k16(products[block].small[0], now.a, small[0], small[1], T{});
            mma_m16n8k16(products[block].small[1], now.a, small[2], small[3], T{});
        }
    }
}

// In f32 each factor is split in two, and the product of the lower halves left out.
template <>
__device__ __forceinline__ void multiply<1>(Products (&products)[BLOCKS<float>], const float* tile, const float* parts,
                                            int columns, int width) {
    const int group = lane_index() >> 2, k_lane = lane_index() & 3, row = warp_index() % WARP_ROWS<float> * 16;
    const int column = block_column<float>(0);
    if (column >= columns) return;
    for (int k = 0; k < width; k += 8) {
        uint32_t a[4], a_low[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float x = tile[(row + group + (i & 1) * 8) * STRIDE<float> + k + k_lane + (i >> 1) * 4];
            split_tf32(x, a[i], a_low[i]);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t b[2], b_low[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                split_tf32(parts[(column + j * 8 + group) * STRIDE<float> + k + k_lane + i * 4], b[i], b_low[i]);
            }
            mma_m16n8k8_tf32(products[0].small[j], a_low, b[0], b[1]);
            mma_m16n8k8_tf32(products[0].small[j], a, b_low[0], b_low[1]);
            mma_m16n8k8_tf32(products[0].large[j], a, b[0], b[1]);
        }
    }
}

// What a tile's results leave for moments: halves of them in f16, which together keep 22 bits of a column of length one, and
// this thread's part of the sums of their squares. Its own rows of a chunk are few enough for f32.
template <class T> struct Kept {
    f16 *high, *low;  // [TILE_ROWS, RESULT_STRIDE], entries times MAGNIFIED
    float squares[BLOCKS<T>][2][2];

    __device__ __forceinline__ void keep(int row, int block, int half, int column, float x, float y) {
        const uint32_t pair = pack(x * MAGNIFIED, y * MAGNIFIED, f16{});
        const float2 rounded = unpack(pair, f16{});
        const uint32_t rest = pack(x * MAGNIFIED - rounded.x, y * MAGNIFIED - rounded.y, f16{});
        *reinterpret_cast<uint32_t*>(high + row * RESULT_STRIDE + column) = pair;
        *reinterpret_cast<uint32_t*>(low + row * RESULT_STRIDE + column) = rest;
        squares[block][half][0] += x * x;
        squares[block][half][1] += y * y;
    }

    // Leaves the sums of each row of warps: [WARP_ROWS, SVD_PROJECTED].
    __device__ __forceinline__ void write_squares(double* to, int columns) const {
#pragma unroll
        for (int block = 0; block < BLOCKS<T>; block++) {
            if (block_column<T>(block) >= columns) return;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                double sum = squares[block][e >> 1][e & 1];
#pragma unroll
                for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
                const int column = block_column<T>(block) + (e >> 1) * 8 + lane_index() * 2 + (e & 1);
                if (lane_index() < 4) to[warp_index() % WARP_ROWS<T> * SVD_PROJECTED + column] = sum;
            }
        }
    }
};

// The result of a tile goes to memory, and is kept for its moments.
template <bool Pairs, int Blocks, class T>
__device__ __forceinline__ void store(const SvdParams& p, const Products (&products)[BLOCKS<T>], const float* scales,
                                      Kept<T>& kept, int tile_row, int first, int columns) {
    const int row = warp_index() % WARP_ROWS<T> * 16 + (lane_index() >> 2), left = p.columns - first;
    const int64_t start = (matrix_index() * p.rows + tile_row + row) * p.columns + first;
#pragma unroll
    for (int block = 0; block < Blocks; block++) {
        if (block_column<T>(block) >= columns) break;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int column = block_column<T>(block) + half * 8 + (lane_index() & 3) * 2;
            const float2 scale = load_pair(scales + column);
            const auto& large = products[block].large[half];
            const auto& small = products[block].small[half];
#pragma unroll
            for (int below = 0; below < 2; below++) {
                const float x = (large[below * 2] + small[below * 2]) * scale.x;
                const float y = (large[below * 2 + 1] + small[below * 2 + 1]) * scale.y;
                if (p.fused) kept.keep(row + below * 8, block, half, column, x, y);
                if (tile_row + row + below * 8 >= p.rows) continue;
                const int64_t at = start + below * 8 * p.columns + column;
                if constexpr (Pairs) {
                    if (column < left) *reinterpret_cast<float2*>(static_cast<float*>(p.tall) + at) = make_float2(x, y);
                } else {
                    store_pair(p.tall, p.tall_dtype, at, x, y, left - column, p.columns % 2 == 0);
                }
            }
        }
    }
}

template <int Blocks, class T>
__device__ __forceinline__ void make(const SvdParams& p, const T* tile, const T* parts, const float* scales, Kept<T>& kept,
                                     int tile_row, int first, int columns, int width) {
    Products products[BLOCKS<T>] = {};
    multiply<Blocks>(products, tile, parts, columns, width);
    if (p.tall_dtype == SVD_F32 && p.columns % 2 == 0) {
        store<true, Blocks>(p, products, scales, kept, tile_row, first, columns);
    } else {
        store<false, Blocks>(p, products, scales, kept, tile_row, first, columns);
    }
}

// Of the triangle of moments each warp has a row of squares for some rows of a tile.
constexpr int SQUARES = SVD_PROJECTED / 16;
template <int Rows> struct Crossed {
    int columns;
    Sums sums[SQUARES] = {};

    __device__ __forceinline__ explicit Crossed(int columns) : columns(columns) {}

    // Warps side by side, each with a row of squares; and how many such groups of warps have rows.
    __device__ __forceinline__ int across() const { return columns <= 32 ? 2 : 4; }
    __device__ __forceinline__ int groups() const { return min(WARPS / across(), Rows / 16); }

    __device__ __forceinline__ void add(const f16* high, const f16* low) {
        using Part = Fragment<f16, RESULT_STRIDE>;
        const int q = warp_index() % across();
        if (q * 16 >= columns) return;
        for (int k = warp_index() / across() * Part::ROWS; k < Rows; k += groups() * Part::ROWS) {
            Part own, own_low;
            own.load(high, k, q * 16);
            own_low.load(low, k, q * 16);
#pragma unroll
            for (int j = 0; j < SQUARES; j++) {
                if (j > q) break;
                Part other, other_low;
                other.load(high, k, j * 16);
                other_low.load(low, k, j * 16);
                add_product(sums[j], own_low, other);
                add_product(sums[j], own, other_low);
                add_product(sums[j], own, other);
            }
        }
    }

    // Rows of which no sum of a warp has more than PARTIAL_ROWS.
    __device__ __forceinline__ int rows_at_most() const { return groups() * PARTIAL_ROWS; }

    // Adds all sums to the triangle, in the order of the groups.
    __device__ __forceinline__ void drain_all(float* triangle, bool first) {
        const int q = warp_index() % across();
#pragma unroll 1
        for (int turn = 0; turn < groups(); turn++) {
            if (turn > 0) __syncthreads();
            if (turn != warp_index() / across()) continue;
#pragma unroll
            for (int j = 0; j < SQUARES; j++) {
                if (q < j) break;
#pragma unroll
                for (int e = 0; e < 8; e++) sums[j][e >> 2][e & 3] *= 1 / (MAGNIFIED * MAGNIFIED);
                if (q * 16 >= columns) continue;
                drain(sums[j], triangle, q, j, first && turn == 0);
            }
        }
    }
};

// Shared memory behind the tiles, for moments.
struct Moments {
    double* squares;  // [WARP_ROWS, SVD_PROJECTED]
    float* triangle;
};

template <class T> __device__ __forceinline__ Moments project(const SvdParams& p, unsigned char* smem) {
    const int64_t index = matrix_index();
    const int rank = p.verdicts[index].rank, first = blockIdx.z * SVD_PROJECTED, width = round_up(p.width, 16);
    const int columns = round_up(min(p.columns - first, SVD_PROJECTED), 16);
    constexpr int ROWS = TILE_ROWS<T>;
    float* const scales = reinterpret_cast<float*>(smem);
    double* const squares = reinterpret_cast<double*>(scales + SVD_PROJECTED);
    T* const parts = reinterpret_cast<T*>(squares + WARP_ROWS<T> * SVD_PROJECTED);
    T* const tiles = parts + PARTS<T> * columns * STRIDE<T>;
    f16* const results = reinterpret_cast<f16*>(tiles + STAGES * ROWS * STRIDE<T>);
    float* const triangle = reinterpret_cast<float*>(results + 2 * ROWS * RESULT_STRIDE);
    const auto a = matrix_of<T>(p, p.width);
    const int start = chunk_index() * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    Pipeline<T, STAGES, ROWS, STRIDE<T>> pipeline(a, tiles, start, end, width, p.dense);
    load_basis(parts, p.basis + (index * p.columns + first) * p.width, p.width, rank - first, columns);
    load_scales(scales, p, first);
    if (p.fused) clear_diagonal(triangle, rank);
    Kept<T> kept{results, results + ROWS * RESULT_STRIDE, {}};
    Crossed<ROWS> crossed(columns);
    for (int row = start; row < end; row += ROWS) {
        const T* tile = pipeline.next(row);
        if (BLOCKS<T> == 1 || columns <= WARP_COLUMNS<T> * 16) {
            make<1>(p, tile, parts, scales, kept, row, first, columns, width);
        } else {
            make<BLOCKS<T>>(p, tile, parts, scales, kept, row, first, columns, width);
        }
        if (!p.fused) continue;
        __syncthreads();
        crossed.add(kept.high, kept.low);
        const int done = row + ROWS - start, most = crossed.rows_at_most();
        if (done % most == 0 || row + ROWS >= end) crossed.drain_all(triangle, done <= most);
    }
    if (p.fused) kept.write_squares(squares, columns);
    return {squares, triangle};
}

template <class T> __device__ __forceinline__ void project_and_finish(const SvdParams& p) {
    DYN_SMEM(smem);
    const int64_t index = matrix_index();
    if (p.verdicts[index].state != SVD_CHOSEN) return;
    const Moments moments = project<T>(p, smem);
    if (!p.fused) return;
    const int rank = p.verdicts[index].rank;
    double* const out = p.moments + (index * p.chunks + chunk_index()) * packed(p.columns, 0);
    write_triangle<SVD_PROJECTED, WARP_ROWS<T>>(out, moments.triangle, moments.squares, rank, true);
    if (!last_block_to_arrive(p.arrivals + index, p.chunks, reinterpret_cast<unsigned*>(smem))) return;
    if (judge(p, smem)) {
        __syncthreads();
        if (p.columns <= 32) {
            mix_rows<32>(p, smem, rank, 0, p.rows);
        } else {
            mix_rows<SVD_PROJECTED>(p, smem, rank, 0, p.rows);
        }
    }
}

KERNEL(svd_project_f32, SvdParams, 256) { project_and_finish<float>(p); }
KERNEL(svd_project_bf16, SvdParams, 256) { project_and_finish<bf16>(p); }
KERNEL(svd_project_f16, SvdParams, 256) { project_and_finish<f16>(p); }
