// Masks that keep the largest keys: of each row, or in each row those above the threshold of the whole matrix.
// A block per row.
#include "sparse/select.cuh"

// The threshold of one row and how many keys equal to it stay.
template <class T, class Key>
__device__ __forceinline__ Selection select_in_row(const SelectParams& p, Key key, SelectMemory& memory) {
    Selection selection = {0, max(p.keep, 1u)};
    for (int top = kKeyBits<T>; top > 0; top = digit_shift(top)) {
        for (int bin = threadIdx.x; bin < kBins; bin += kThreads) memory.counts[bin] = 0;
        __syncthreads();
        for (int col = threadIdx.x; col < p.cols; col += kThreads) {
            const uint32_t k = key(col);
            count_digit(memory.counts, k, selection.key, top);
            if (top == kKeyBits<T> && k > p.infinity) report_nan(p.first_nan, int64_t(blockIdx.x) * p.cols + col);
        }
        __syncthreads();
        pick_digit(memory.counts, memory.totals, selection, top, &memory.selection);
        __syncthreads();
        selection = memory.selection;
    }
    return selection;
}

// What is left of the selection of the whole matrix for one row.
__device__ __forceinline__ Selection share_of_row(const SelectParams& p, int64_t row) {
    Selection selection = *static_cast<const Selection*>(p.selection);
    selection.left -= min(selection.left, p.ties_before[row]);
    return selection;
}

template <class T> __device__ __forceinline__ void select_row(const SelectParams& p, unsigned char* smem) {
    SelectMemory& memory = *reinterpret_cast<SelectMemory*>(smem);
    const int64_t row = blockIdx.x;
    const T* scores = static_cast<const T*>(p.scores) + row * p.row_stride;
    T* staged = reinterpret_cast<T*>(smem + sizeof(SelectMemory));
    if (p.staged)  // the selection's first barrier comes before the first look at another thread's columns
        for (int col = threadIdx.x; col < p.cols; col += kThreads) staged[col] = scores[col];
    const T* keys = p.staged ? staged : scores;
    const auto key = [=](int col) { return key_of(keys[col]); };
    Selection selection = p.selection ? share_of_row(p, row) : select_in_row<T>(p, key, memory);
    if (p.keep == 0) selection = {0xffffffffu, 0};  // above every key
    const int words = (p.cols + 31) / 32;
    write_kept(key, p.cols, selection.key, selection.left, memory.totals, p.bits + row * words);
}

KERNEL(sparse_select_row_32, SelectParams, 256) {
    DYN_SMEM(smem);
    select_row<uint32_t>(p, smem);
}
KERNEL(sparse_select_row_16, SelectParams, 256) {
    DYN_SMEM(smem);
    select_row<uint16_t>(p, smem);
}
