// The threshold of a whole matrix: count and pick for each digit, then the ties of each row and their sums over the
// rows before. sparse_select_row writes the bits.
#include "sparse/select.cuh"

// Columns that a block counts of each of its rows.
constexpr int kCountedColumns = 1 << 16;

template <class T> __device__ __forceinline__ void count(const CountParams& p, SelectMemory& memory) {
    const uint32_t known = static_cast<const Selection*>(p.selection)->key;
    const int first = blockIdx.y * kCountedColumns, last = min(first + kCountedColumns, p.cols);
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) memory.counts[bin] = 0;
    __syncthreads();
    const uint32_t finite = p.top == kKeyBits<T> ? p.infinity : ~0u;  // NaN is looked for once
    for (int row = blockIdx.x; row < p.rows; row += gridDim.x) {
        const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
        for (int col = first + threadIdx.x; col < last; col += kThreads) {
            const uint32_t key = key_of(scores[col]);
            count_digit(memory.counts, key, known, p.top);
            if (key > finite) report_nan(p.first_nan, int64_t(row) * p.cols + col);
        }
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads)
        if (memory.counts[bin]) atomicAdd(&p.counts[bin], memory.counts[bin]);
}

KERNEL(sparse_count_32, CountParams, 256) {
    DYN_SMEM(smem);
    count<uint32_t>(p, *reinterpret_cast<SelectMemory*>(smem));
}
KERNEL(sparse_count_16, CountParams, 256) {
    DYN_SMEM(smem);
    count<uint16_t>(p, *reinterpret_cast<SelectMemory*>(smem));
}

// One block.
KERNEL(sparse_pick, PickParams, 256) {
    DYN_SMEM(smem);
    SelectMemory& memory = *reinterpret_cast<SelectMemory*>(smem);
    Selection* selection = static_cast<Selection*>(p.selection);
    const Selection was = *selection;
    pick_digit(p.counts, memory.totals, was, p.top, selection);
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) p.counts[bin] = 0;
}

// A block per row.
template <class T> __device__ __forceinline__ void count_ties(const TiesParams& p, SelectMemory& memory) {
    const uint32_t threshold = static_cast<const Selection*>(p.selection)->key;
    const T* scores = static_cast<const T*>(p.scores) + int64_t(blockIdx.x) * p.row_stride;
    uint32_t mine = 0;
    for (int col = threadIdx.x; col < p.cols; col += kThreads) mine += key_of(scores[col]) == threshold;
    const uint32_t before = sum_before(mine, memory.totals);
    if (threadIdx.x == kThreads - 1) p.ties[blockIdx.x] = before + mine;
}

KERNEL(sparse_ties_32, TiesParams, 256) {
    DYN_SMEM(smem);
    count_ties<uint32_t>(p, *reinterpret_cast<SelectMemory*>(smem));
}
KERNEL(sparse_ties_16, TiesParams, 256) {
    DYN_SMEM(smem);
    count_ties<uint16_t>(p, *reinterpret_cast<SelectMemory*>(smem));
}

// One block.
KERNEL(sparse_scan_ties, ScanParams, 256) {
    DYN_SMEM(smem);
    SelectMemory& memory = *reinterpret_cast<SelectMemory*>(smem);
    uint32_t earlier = 0;
    for (int first = 0; first < p.rows; first += kThreads) {
        const int row = first + threadIdx.x;
        const uint32_t mine = row < p.rows ? p.ties[row] : 0;
        const uint32_t before = sum_before(mine, memory.totals);
        if (row < p.rows) p.ties[row] = earlier + before;
        if (threadIdx.x == kThreads - 1) memory.counts[0] = before + mine;
        __syncthreads();
        earlier += memory.counts[0];
    }
}
