// A'A of matrices, summed up by chunks of rows on tensor cores. A block takes a chunk, or all chunks of a matrix one after
// another: the sums are the same.
#pragma once
#include "svd/tiles.cuh"

constexpr int PARTIAL_ROWS = 256;  // sums in f32 are no longer than this
constexpr int STRIDE = MAX_WIDTH + 8, STAGES = 3;
template <class T> constexpr int TILE_ROWS = 128 / sizeof(T);
template <class T> constexpr int TILE = TILE_ROWS<T> * STRIDE;

// Of the triangle's eight rows of squares two warps have row Q and row 7 - Q, nine squares: one of them in the columns
// before a split, the other one in those from there. Each sum is one warp's, and none has more than SQUARES.
constexpr int SQUARES = 5;
template <int Q, bool Right> struct Part {
    static constexpr int SPLIT = Q == 0 ? 4 : 2, SHORT = Q, LONG = 7 - Q;
    static constexpr int FIRST = Right ? SPLIT : 0, LAST = Right ? LONG : SPLIT - 1;
    static constexpr int OF_LONG = LAST - FIRST + 1;
    static constexpr bool HAS_SHORT = FIRST <= SHORT;

    static __device__ __forceinline__ constexpr bool is_short(int j) { return j <= SHORT; }
    static __device__ __forceinline__ constexpr int long_square(int j) { return j - FIRST; }
    static __device__ __forceinline__ constexpr int short_square(int j) { return OF_LONG + j - FIRST; }
};

template <class Work> __device__ __forceinline__ void with_part(const Work& work) {
    switch (warp_index()) {
        case 0: return work(Part<0, false>{});
        case 1: return work(Part<1, false>{});
        case 2: return work(Part<2, false>{});
        case 3: return work(Part<3, false>{});
        case 4: return work(Part<0, true>{});
        case 5: return work(Part<1, true>{});
        case 6: return work(Part<2, true>{});
        default: return work(Part<3, true>{});
    }
}

// Each fragment is loaded once: it is a factor from the left and from the right.
template <bool HasLong, class P, class T>
__device__ __forceinline__ void add_products_of(P, Sums (&sums)[SQUARES], const T* tile) {
    using Factor = Fragment<T, STRIDE>;
    constexpr int LAST = HasLong || P::LAST < P::SHORT ? P::LAST : P::SHORT;
    if constexpr (P::FIRST <= LAST) {
#pragma unroll 1
        for (int k = 0; k < TILE_ROWS<T>; k += Factor::ROWS) {
            Factor of_short, of_long, others[LAST - P::FIRST + 1];  // all under way before one is waited for
            if (P::HAS_SHORT) of_short.load(tile, k, P::SHORT * 16);
            if (HasLong) of_long.load(tile, k, P::LONG * 16);
#pragma unroll
            for (int j = P::FIRST; j <= LAST; j++) {
                Factor& other = others[j - P::FIRST];
                if (j == P::SHORT) {
                    other = of_short;
                } else if (j == P::LONG) {
                    other = of_long;
                } else {
                    other.load(tile, k, j * 16);
                }
            }
#pragma unroll
            for (int j = P::FIRST; j <= LAST; j++) {
                const Factor& other = others[j - P::FIRST];
                if (HasLong) add_product(sums[P::long_square(j)], of_long, other);
                if (P::is_short(j)) add_product(sums[P::short_square(j)], of_short, other);
            }
        }
    }
}

template <class P, class T>
__device__ __forceinline__ void add_products(P part, Sums (&sums)[SQUARES], const T* tile, int columns) {
    if (P::LONG * 16 < columns) {
        add_products_of<true>(part, sums, tile);
    } else if (P::SHORT * 16 < columns) {
        add_products_of<false>(part, sums, tile);
    }
}

template <class P>
__device__ __forceinline__ void drain(P, Sums (&sums)[SQUARES], float* triangle, int columns, bool first) {
#pragma unroll
    for (int j = P::FIRST; j <= P::LAST; j++) {
        if (P::LONG * 16 < columns) drain(sums[P::long_square(j)], triangle, P::LONG, j, first);
        if (P::is_short(j) && P::SHORT * 16 < columns) drain(sums[P::short_square(j)], triangle, P::SHORT, j, first);
    }
}

template <class T> __device__ __forceinline__ void gram(const GramParams& p) {
    DYN_SMEM(smem);
    const int64_t index = matrix_index();
    if (!p.all && p.verdicts[index].state != p.wanted) return;
    const int columns = p.by_rank ? p.verdicts[index].rank : p.columns, width = round_up(columns, 16);
    double* const squares = reinterpret_cast<double*>(smem);  // [ROW_GROUPS<MAX_WIDTH>, MAX_WIDTH]
    T* const tiles = reinterpret_cast<T*>(squares + ROW_GROUPS<MAX_WIDTH> * MAX_WIDTH);
    float* const triangle = reinterpret_cast<float*>(tiles + STAGES * TILE<T>);
    const auto a = matrix_of<T>(p, p.columns);
    clear_diagonal(triangle, columns);

    for (int chunk = chunk_index(); chunk * SVD_CHUNK_ROWS < p.rows; chunk += gridDim.x) {
        const int start = chunk * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
        Pipeline<T, STAGES, TILE_ROWS<T>, STRIDE> pipeline(a, tiles, start, end, width, p.dense);
        Sums sums[SQUARES] = {};
        for (int row = start; row < end; row += TILE_ROWS<T>) {
            const T* tile = pipeline.next(row);
            with_part([&](auto part) { add_products(part, sums, tile, columns); });
            add_squares<MAX_WIDTH, TILE_ROWS<T>, STRIDE>(squares, tile, columns, row == start);
            const int done = row + TILE_ROWS<T> - start;
            if (done % PARTIAL_ROWS != 0 && row + TILE_ROWS<T> < end) continue;
            with_part([&](auto part) { drain(part, sums, triangle, columns, done <= PARTIAL_ROWS); });
        }
        double* const out = p.partials + (index * gridDim.x + chunk_index()) * packed(p.columns, 0);
        write_triangle<MAX_WIDTH>(out, triangle, squares, columns, chunk == chunk_index());
    }
}
