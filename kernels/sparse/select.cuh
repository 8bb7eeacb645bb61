// Finding the k-th largest key, digit by digit, and writing the mask that it means. Everything is integer arithmetic,
// so the order of atomics does not show. Blocks have 256 threads.
#pragma once
#include "device/kernel.cuh"
#include "sparse/params.h"

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kDigitBits = 11, kBins = 1 << kDigitBits, kBinsPerThread = kBins / kThreads;
constexpr unsigned kAllLanes = 0xffffffffu;

// T is uint32_t or uint16_t: the bits of a score.
template <class T> constexpr int kKeyBits = 8 * sizeof(T) - 1;
template <class T> __device__ __forceinline__ uint32_t key_of(T score) {
    return score & ((1u << kKeyBits<T>) - 1);
}

// Lowest bit of the digit below bit `top`.
__device__ __forceinline__ int digit_shift(int top) {
    return top > kDigitBits ? top - kDigitBits : 0;
}

struct SelectMemory {
    uint32_t counts[kBins];
    uint32_t totals[kWarps];
    Selection selection;
};

// Sum of `value` over the threads before this one. Every thread of the block calls it; between two calls with the same
// totals there is a barrier.
__device__ __forceinline__ uint32_t sum_before(uint32_t value, uint32_t (&totals)[kWarps]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    uint32_t sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const uint32_t other = __shfl_up_sync(kAllLanes, sum, distance);
        if (lane >= distance) sum += other;
    }
    if (lane == 31) totals[warp] = sum;
    __syncthreads();
    uint32_t before = sum - value;
    for (int w = 0; w < warp; w++) before += totals[w];
    return before;
}

__device__ __forceinline__ void report_nan(uint64_t* first_nan, int64_t index) {
    atomicMin(reinterpret_cast<unsigned long long*>(first_nan), static_cast<unsigned long long>(index));
}

// Counts the digits below bit `top` of the keys whose upper bits are known.
__device__ __forceinline__ void count_digit(uint32_t (&counts)[kBins], uint32_t key, uint32_t known, int top) {
    const int shift = digit_shift(top);
    if (key >> top == known) atomicAdd(&counts[(key >> shift) & ((1u << (top - shift)) - 1)], 1u);
}

// Appends the digit of the left-th largest key that was counted, from counts in shared or global memory. One thread
// writes `selection`; a barrier must follow.
__device__ __forceinline__ void pick_digit(
    const uint32_t* counts, uint32_t (&totals)[kWarps], Selection was, int top, Selection* selection) {
    const int highest = kBins - 1 - int(threadIdx.x) * kBinsPerThread;  // a thread's bins, from high to low
    uint32_t mine = 0;
#pragma unroll
    for (int i = 0; i < kBinsPerThread; i++) mine += counts[highest - i];
    uint32_t larger = sum_before(mine, totals);
    if (larger >= was.left || larger + mine < was.left) return;
    int bin = highest;
    while (larger + counts[bin] < was.left) larger += counts[bin--];
    selection->key = was.key << (top - digit_shift(top)) | uint32_t(bin);
    selection->left = was.left - larger;
}

// The bits of one row: keys above the threshold, and the first `ties` keys equal to it. `key(col)` reads a key.
template <class Key>
__device__ __forceinline__ void write_kept(
    Key key, int cols, uint32_t threshold, uint32_t ties, uint32_t (&totals)[kWarps], uint32_t* bits) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int words = (cols + 31) / 32, share = (words + kWarps - 1) / kWarps;
    const int first = min(warp * share, words), last = min(first + share, words);
    uint32_t mine = 0;
    for (int col = first * 32 + lane; col < min(last * 32, cols); col += 32) mine += key(col) == threshold;
    // A warp's columns lie before the next warp's; within a warp the lanes interleave and are counted by ballots.
    const uint32_t before_thread = sum_before(mine, totals);
    uint32_t before = __shfl_sync(kAllLanes, before_thread, 0);
    for (int word = first; word < last; word++) {
        const int col = word * 32 + lane;
        const bool inside = col < cols;
        const uint32_t k = inside ? key(col) : 0;
        const bool equal = inside && k == threshold;
        const uint32_t equals = __ballot_sync(kAllLanes, equal);
        const uint32_t rank = before + __popc(equals & ((1u << lane) - 1));
        const uint32_t kept = __ballot_sync(kAllLanes, inside && (k > threshold || (equal && rank < ties)));
        if (lane == 0) bits[word] = kept;
        before += __popc(equals);
    }
}
