// Masks that keep `keep` of every 4 or 8 consecutive elements. A thread makes one byte of the mask: eight columns.
#include "sparse/bytes.cuh"
#include "sparse/select.cuh"

template <class T, int kGroup> __device__ __forceinline__ void pattern(const PatternParams& p) {
    const Byte at(p.row_bytes);
    if (at.row >= p.rows) return;
    T scores[8];
    load_eight(scores, static_cast<const T*>(p.scores) + at.row * p.row_stride + at.col, p.cols - at.col);
    uint32_t keys[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        keys[i] = key_of(scores[i]);
        if (keys[i] > p.infinity) report_nan(p.first_nan, at.row * p.cols + at.col + i);
    }
    int larger[8] = {};  // keys of the group that come first; past the last column are zeros, which come last
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = i + 1; j < i / kGroup * kGroup + kGroup; j++) {
            larger[i] += keys[j] > keys[i];
            larger[j] += keys[j] <= keys[i];
        }
    uint32_t byte = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) byte |= uint32_t(larger[i] < p.keep && at.col + i < p.cols) << i;
    p.bits[at.row * p.row_bytes + at.col / 8] = uint8_t(byte);
}

KERNEL(sparse_pattern_of4_32, PatternParams, 256) { pattern<uint32_t, 4>(p); }
KERNEL(sparse_pattern_of4_16, PatternParams, 256) { pattern<uint16_t, 4>(p); }
KERNEL(sparse_pattern_of8_32, PatternParams, 256) { pattern<uint32_t, 8>(p); }
KERNEL(sparse_pattern_of8_16, PatternParams, 256) { pattern<uint16_t, 8>(p); }
