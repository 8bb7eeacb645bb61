// Decode over latents: one query a sequence, every cached byte read once.
//
// A block takes one split of one segment, one key-value head and up to eight of the query heads that share it. Its
// warps work alone, each on 16 tokens at a time with cp.async and an online softmax of its own, and are merged at the
// end.
//
// The 16 rows of an mma hold eight query heads twice: row h a head's operand rounded to bf16, row h + 8 what rounding
// left over. Both rows of a sum lie in the same thread, so queries and probabilities keep 16 bits at no cost.
#include "attention/params.h"
#include "device/copy.cuh"
#include "device/kernel.cuh"
#include "device/mma.cuh"
#include "device/quant.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int TILE = 16;    // tokens that a warp takes at a time
constexpr int HEADS = 8;    // query heads of a block
constexpr int STAGES = 2;   // tiles in flight

// One side, keys or values, of a segment's head.
template <class Code> struct Rows {
    const Code* codes;
    int rank;
    bool whole;    // rows are made of aligned 16-byte pieces

    __device__ Rows(const void* all, int64_t capacity, int rank, int head)
        : codes(static_cast<const Code*>(all) + head * capacity * rank),
          rank(rank),
          whole(rank * sizeof(Code) % 16 == 0 && reinterpret_cast<uintptr_t>(codes) % 16 == 0) {}
};

// What a warp keeps of one side in shared memory.
template <class Code, int RANK> struct alignas(16) Tiles {
    Code arriving[STAGES][TILE * RANK];
};
template <int RANK> struct alignas(16) Tiles<int8_t, RANK> {
    int8_t arriving[STAGES][TILE * RANK];
    bf16 converted[TILE * RANK];
};

template <class Code, int RANK> struct WarpShared {
    Tiles<Code, RANK> keys, values;
};

// What a warp hands to the others when its tokens are done.
template <int RANK> struct Merge {
    float peaks[WARPS][HEADS];
    float sums[WARPS][HEADS];
    float latents[WARPS][HEADS][RANK];
};

// Index of an element of a bf16 tile [TILE][RANK] whose 16-byte pieces are exchanged such that eight rows of one column
// lie in different banks.
template <int RANK> __device__ __forceinline__ int swizzled(int row, int column) {
    constexpr int PIECES = RANK / 8 < 8 ? RANK / 8 : 8;
    return row * RANK + (column ^ (row * PIECES / 8 % PIECES * 8));
}

template <class Code, int RANK> __device__ __forceinline__ int arriving_index(int row, int column) {
    return sizeof(Code) == 1 ? row * RANK + column : swizzled<RANK>(row, column);
}

// Starts copying tokens [first, first + TILE); what lies at or beyond `end`, or beyond the rank, becomes zero.
template <class Code, int RANK>
__device__ __forceinline__ void load(Code* tile, const Rows<Code>& rows, int first, int end) {
    constexpr int PIECE = 16 / sizeof(Code);
    const int lane = threadIdx.x % 32;
    if (rows.whole) {
#pragma unroll 1
        for (int i = lane; i < TILE * RANK / PIECE; i += 32) {
            const int row = i / (RANK / PIECE), column = i % (RANK / PIECE) * PIECE;
            const bool held = first + row < end && column < rows.rank;
            const Code* from = rows.codes + (held ? (first + row) * rows.rank + column : 0);
            cp_async16(tile + arriving_index<Code, RANK>(row, column), from, held);
        }
    } else {
#pragma unroll 1
        for (int i = lane; i < TILE * RANK; i += 32) {
            const int row = i / RANK, column = i % RANK;
            const bool held = first + row < end && column < rows.rank;
            const Code code = held ? rows.codes[(first + row) * rows.rank + column] : Code{};
            tile[arriving_index<Code, RANK>(row, column)] = code;
        }
    }
}

// Codes 2 i and 2 i + 1 of a word.
__device__ __forceinline__ uint32_t widen(uint32_t codes, int i) {
    return pack(float(int8_code(codes, 2 * i)), float(int8_code(codes, 2 * i + 1)), bf16{});
}

// The tile that has arrived, in bf16; codes are converted as they are, their scales are applied to logits and weights.
template <int RANK> __device__ __forceinline__ const bf16* ready(Tiles<bf16, RANK>& tiles, int stage) {
    return tiles.arriving[stage];
}

template <int RANK> __device__ __forceinline__ const bf16* ready(Tiles<int8_t, RANK>& tiles, int stage) {
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < TILE * RANK / 8; i += 32) {
        const int row = i / (RANK / 8), column = i % (RANK / 8) * 8;
        const uint2 codes = *reinterpret_cast<const uint2*>(tiles.arriving[stage] + row * RANK + column);
        *reinterpret_cast<uint4*>(tiles.converted + swizzled<RANK>(row, column)) =
            make_uint4(widen(codes.x, 0), widen(codes.x, 1), widen(codes.y, 0), widen(codes.y, 1));
    }
    return tiles.converted;
}

// x and y as sums of two bf16.
__device__ __forceinline__ void split_pair(float x, float y, uint32_t& rounded, uint32_t& rest) {
    rounded = pack(x, y, bf16{});
    const float2 kept = unpack(rounded, bf16{});
    rest = pack(x - kept.x, y - kept.y, bf16{});
}

// The query as the A operand: absorbed is that of this block's first head, [heads, width].
template <int RANK>
__device__ __forceinline__ void load_query(uint32_t (&query)[RANK / 16][4], const float* absorbed, int heads,
                                           int width) {
    const int lane = threadIdx.x % 32, head = lane / 4;
#pragma unroll
    for (int k = 0; k < RANK / 16; k++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int column = k * 16 + half * 8 + lane % 4 * 2;
            const float* from = absorbed + head * width + column;
            const float low = head < heads ? from[0] : 0.f, high = head < heads ? from[1] : 0.f;
            split_pair(low, high, query[k][2 * half], query[k][2 * half + 1]);
        }
    }
}

// Running softmax of a warp: each thread's share of one query head.
template <int RANK> struct State {
    float peak = -INFINITY;
    float sum = 0.f;
    float latents[RANK / 8][4] = {};

    // Takes the logits of tokens {0, 1, 8, 9} + 2 (lane % 4), the scales of their values, and a tile of values.
    __device__ __forceinline__ void take(const float (&logits)[4], const float (&scales)[4], const bf16* values) {
        float top = fmaxf(fmaxf(fmaxf(peak, logits[0]), fmaxf(logits[1], logits[2])), logits[3]);
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float shrink = exp2f(peak - top);
        peak = top;
        float weights[4];
        sum *= shrink;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            weights[i] = exp2f(logits[i] - top);
            sum += weights[i];
            weights[i] *= scales[i];
        }
        uint32_t operand[4];
        split_pair(weights[0], weights[1], operand[0], operand[1]);
        split_pair(weights[2], weights[3], operand[2], operand[3]);
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < RANK / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) latents[n][i] *= shrink;
#pragma unroll
        for (int n = 0; n < RANK / 16; n++) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, values + swizzled<RANK>(lane % 16, n * 16 + lane / 16 * 8));
            mma_m16n8k16(latents[2 * n], operand, b[0], b[1], bf16{});
            mma_m16n8k16(latents[2 * n + 1], operand, b[2], b[3], bf16{});
        }
    }
};

// Logits of the tokens that State::take wants, before scales.
template <int RANK>
__device__ __forceinline__ void multiply(float (&logits)[4], const uint32_t (&query)[RANK / 16][4], const bf16* keys) {
    const int lane = threadIdx.x % 32;
    float products[2][4] = {};
#pragma unroll
    for (int k = 0; k < RANK / 16; k++) {
        uint32_t b[4];
        ldmatrix_x4(b, keys + swizzled<RANK>(lane % 8 + lane / 16 * 8, k * 16 + lane / 8 % 2 * 8));
        mma_m16n8k16(products[0], query[k], b[0], b[1], bf16{});
        mma_m16n8k16(products[1], query[k], b[2], b[3], bf16{});
    }
#pragma unroll
    for (int i = 0; i < 4; i++) logits[i] = products[i / 2][i % 2] + products[i / 2][i % 2 + 2];
}

// Where a lane reads scales: lanes 0 to 15 those of a tile's keys, the others those of its values.
__device__ __forceinline__ const f16* lane_scales(const Segment& segment, int head) {
    const int lane = threadIdx.x % 32;
    const int64_t row = head * (lane < 16 ? segment.key_capacity : segment.value_capacity) + lane % 16;
    return static_cast<const f16*>(lane < 16 ? segment.key_scales : segment.value_scales) + row;
}

// Writes what the block's warps found, in the order of the warps.
template <int RANK>
__device__ __forceinline__ void merge(const DecodeParams& p, const Merge<RANK>& all, int64_t row, int heads, int rank,
                                      const float* bias) {
#pragma unroll 1
    for (int i = threadIdx.x; i < heads * RANK; i += THREADS) {
        const int head = i / RANK, column = i % RANK;
        float peak = -INFINITY, sum = 0.f, latent = 0.f;
        for (int warp = 0; warp < WARPS; warp++) peak = fmaxf(peak, all.peaks[warp][head]);
        for (int warp = 0; warp < WARPS; warp++) {
            const float weight = exp2f(all.peaks[warp][head] - peak);
            sum += weight * all.sums[warp][head];
            latent += weight * all.latents[warp][head][column];
        }
        if (column < rank) p.latents[(row + head) * p.width + column] = latent;
        if (column == 0) {
            p.peaks[row + head] = peak + bias[head];
            p.sums[row + head] = sum;
        }
    }
}

template <class Code, int RANK> __device__ __forceinline__ void decode(const DecodeParams& p, unsigned char* memory) {
    static_assert(WARPS * sizeof(WarpShared<Code, RANK>) == 512 * RANK, "what a launch provides");
    static_assert(sizeof(Merge<RANK>) <= 512 * RANK, "results take the place of tiles");
    const Split split = p.splits[blockIdx.x];
    const Segment& segment = p.segments[split.segment];
    const int group = p.n_heads / p.n_kv_heads, chunks = (group + HEADS - 1) / HEADS;
    const int kv_head = blockIdx.y / chunks, chunk = blockIdx.y % chunks;
    const int first_head = kv_head * group + chunk * HEADS, heads = min(HEADS, group - chunk * HEADS);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    const Rows<Code> keys(segment.keys, segment.key_capacity, segment.key_rank, kv_head);
    const Rows<Code> values(segment.values, segment.value_capacity, segment.value_rank, kv_head);
    WarpShared<Code, RANK>& tiles = reinterpret_cast<WarpShared<Code, RANK>*>(memory)[warp];
    const int end = split.first + split.tokens;
    int first = split.first + warp * TILE;
    auto start = [&](int stage, int first) {
        if (first < end) {
            load<Code, RANK>(tiles.keys.arriving[stage], keys, first, end);
            load<Code, RANK>(tiles.values.arriving[stage], values, first, end);
        }
        cp_async_commit();
    };
    start(0, first);

    const int64_t query_row = int64_t(split.segment) * p.n_heads + first_head;
    uint32_t query[RANK / 16][4];
    load_query<RANK>(query, p.absorbed + query_row * p.width, heads, p.width);
    const f16* scales = sizeof(Code) == 1 ? lane_scales(segment, kv_head) : nullptr;
    auto load_scale = [&](int first) { return scales && first + lane % 16 < end ? to_float(scales[first]) : 0.f; };
    float scale = load_scale(first);
    State<RANK> state;
    for (int stage = 0; first < end; stage ^= 1, first += WARPS * TILE) {
        start(stage ^ 1, first + WARPS * TILE);
        cp_async_wait<1>();
        __syncwarp();
        const bf16* key_tile = ready<RANK>(tiles.keys, stage);
        const bf16* value_tile = ready<RANK>(tiles.values, stage);
        const float next_scale = load_scale(first + WARPS * TILE);
        if (sizeof(Code) == 1) __syncwarp();    // converted tiles are read by other lanes, and copies overwrite codes

        float logits[4], value_scales[4] = {1.f, 1.f, 1.f, 1.f};
        multiply<RANK>(logits, query, key_tile);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int token = i / 2 * 8 + lane % 4 * 2 + i % 2;
            if (sizeof(Code) == 1) {
                logits[i] *= __shfl_sync(0xffffffffu, scale, token);
                value_scales[i] = __shfl_sync(0xffffffffu, scale, token + 16);
            }
            if (first + token >= end) logits[i] = -INFINITY;
        }
        state.take(logits, value_scales, value_tile);
        scale = next_scale;
        if (sizeof(Code) != 1) __syncwarp();    // the next copy overwrites this tile
    }

    state.sum += __shfl_xor_sync(0xffffffffu, state.sum, 1);
    state.sum += __shfl_xor_sync(0xffffffffu, state.sum, 2);
    __syncthreads();    // tiles of the other warps lie where results go
    Merge<RANK>& all = *reinterpret_cast<Merge<RANK>*>(memory);
    if (lane % 4 == 0) {
        all.peaks[warp][lane / 4] = state.peak;
        all.sums[warp][lane / 4] = state.sum;
    }
#pragma unroll
    for (int n = 0; n < RANK / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            all.latents[warp][lane / 4][n * 8 + lane % 4 * 2 + i] = state.latents[n][i] + state.latents[n][i + 2];
    __syncthreads();
    merge(p, all, int64_t(split.index) * p.n_heads + first_head, heads, segment.value_rank, p.bias + query_row);
}

KERNEL(attention_decode_bf16_r16, DecodeParams, 128) { DYN_SMEM(smem); decode<bf16, 16>(p, smem); }
KERNEL(attention_decode_bf16_r32, DecodeParams, 128) { DYN_SMEM(smem); decode<bf16, 32>(p, smem); }
KERNEL(attention_decode_bf16_r64, DecodeParams, 128) { DYN_SMEM(smem); decode<bf16, 64>(p, smem); }
KERNEL(attention_decode_bf16_r128, DecodeParams, 128) { DYN_SMEM(smem); decode<bf16, 128>(p, smem); }
KERNEL(attention_decode_int8_r16, DecodeParams, 128) { DYN_SMEM(smem); decode<int8_t, 16>(p, smem); }
KERNEL(attention_decode_int8_r32, DecodeParams, 128) { DYN_SMEM(smem); decode<int8_t, 32>(p, smem); }
KERNEL(attention_decode_int8_r64, DecodeParams, 128) { DYN_SMEM(smem); decode<int8_t, 64>(p, smem); }
KERNEL(attention_decode_int8_r128, DecodeParams, 128) { DYN_SMEM(smem); decode<int8_t, 128>(p, smem); }
