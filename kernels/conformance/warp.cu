// One kernel of one warp per primitive: registers come from the input as they are and go to the output as they are, so
// that a recording on a GPU says what every lane held.
#include "conformance/params.h"
#include "device/mma.cuh"
#include "device/philox.cuh"

// Word i of this lane in a case, of `words` to a lane.
__device__ __forceinline__ const uint32_t* lane_input(const ConformanceParams& p, int test, int words) {
    return static_cast<const uint32_t*>(p.input) + (test * 32 + int(threadIdx.x)) * words;
}
__device__ __forceinline__ uint32_t* lane_output(const ConformanceParams& p, int test, int words) {
    return static_cast<uint32_t*>(p.output) + (test * 32 + int(threadIdx.x)) * words;
}

// Input [count, 32 lanes, a 4, b 2, d 4], output [count, 32 lanes, d 4].
template <class T> __device__ __forceinline__ void mma_cases(const ConformanceParams& p) {
    for (int test = 0; test < p.count; test++) {
        const uint32_t* in = lane_input(p, test, 10);
        uint32_t* out = lane_output(p, test, 4);
        const uint32_t a[4] = {in[0], in[1], in[2], in[3]};
        float d[4];
        for (int i = 0; i < 4; i++) d[i] = __uint_as_float(in[6 + i]);
        mma_m16n8k16(d, a, in[4], in[5], T());
        for (int i = 0; i < 4; i++) out[i] = __float_as_uint(d[i]);
    }
}
KERNEL(conformance_mma_bf16, ConformanceParams, 32) { mma_cases<bf16>(p); }
KERNEL(conformance_mma_f16, ConformanceParams, 32) { mma_cases<f16>(p); }

// As above, of m16n8k8.
KERNEL(conformance_mma_tf32, ConformanceParams, 32) {
    for (int test = 0; test < p.count; test++) {
        const uint32_t* in = lane_input(p, test, 10);
        uint32_t* out = lane_output(p, test, 4);
        const uint32_t a[4] = {in[0], in[1], in[2], in[3]};
        float d[4];
        for (int i = 0; i < 4; i++) d[i] = __uint_as_float(in[6 + i]);
        mma_m16n8k8_tf32(d, a, in[4], in[5]);
        for (int i = 0; i < 4; i++) out[i] = __float_as_uint(d[i]);
    }
}

// Input [count, 32 lanes, a 4, b 4, metadata 1, d 4], output [count, 32 lanes, d 4]; mode is the selector.
template <class T> __device__ __forceinline__ void sparse_cases(const ConformanceParams& p) {
    for (int test = 0; test < p.count; test++) {
        const uint32_t* in = lane_input(p, test, 13);
        uint32_t* out = lane_output(p, test, 4);
        const uint32_t a[4] = {in[0], in[1], in[2], in[3]}, b[4] = {in[4], in[5], in[6], in[7]};
        float d[4];
        for (int i = 0; i < 4; i++) d[i] = __uint_as_float(in[9 + i]);
        if (p.mode == 0) mma_sp_m16n8k32<0>(d, a, b, in[8], T());
        else mma_sp_m16n8k32<1>(d, a, b, in[8], T());
        for (int i = 0; i < 4; i++) out[i] = __float_as_uint(d[i]);
    }
}
KERNEL(conformance_mma_sparse_bf16, ConformanceParams, 32) { sparse_cases<bf16>(p); }
KERNEL(conformance_mma_sparse_f16, ConformanceParams, 32) { sparse_cases<f16>(p); }

// Input [32 lanes, the row of shared memory that each gives], then [32 rows, 4]; output [32 lanes, 4].
// Mode 0 loads four matrices, 1 four transposed, 2 two, 3 two transposed.
KERNEL(conformance_ldmatrix, ConformanceParams, 32) {
    DYN_SMEM(smem);
    const uint32_t* in = static_cast<const uint32_t*>(p.input);
    uint32_t* rows = reinterpret_cast<uint32_t*>(smem);
    for (int i = 0; i < 4; i++) rows[threadIdx.x * 4 + i] = in[32 + threadIdx.x * 4 + i];
    __syncwarp();
    const void* row = rows + in[threadIdx.x] * 4;
    uint32_t four[4] = {}, two[2] = {};
    if (p.mode == 0) ldmatrix_x4(four, row);
    if (p.mode == 1) ldmatrix_x4_trans(four, row);
    if (p.mode == 2) ldmatrix_x2(two, row);
    if (p.mode == 3) ldmatrix_x2_trans(two, row);
    uint32_t* out = lane_output(p, 0, 4);
    for (int i = 0; i < 4; i++) out[i] = p.mode < 2 ? four[i] : i < 2 ? two[i] : 0;
}

// Input [32 lanes], output [32 lanes].
KERNEL(conformance_movmatrix, ConformanceParams, 32) {
    *lane_output(p, 0, 1) = movmatrix(*lane_input(p, 0, 1));
}

// Input [32 lanes, 4], output [32 lanes, 4]: lanes whose bit of mode is clear copy zeros over what lies there.
KERNEL(conformance_cp_async, ConformanceParams, 32) {
    DYN_SMEM(smem);
    uint32_t* own = reinterpret_cast<uint32_t*>(smem) + threadIdx.x * 4;
    for (int i = 0; i < 4; i++) own[i] = 0xdeadbeefu;
    cp_async16(own, lane_input(p, 0, 4), uint32_t(p.mode) >> threadIdx.x & 1);
    cp_async_commit();
    cp_async_wait<0>();
    uint32_t* out = lane_output(p, 0, 4);
    for (int i = 0; i < 4; i++) out[i] = own[i];
}

// Input [32 lanes], output [32 lanes, 16]: shuffles, votes, matches and reductions.
KERNEL(conformance_collectives, ConformanceParams, 32) {
    const uint32_t all = 0xffffffffu, x = *lane_input(p, 0, 1);
    uint32_t* out = lane_output(p, 0, 16);
    out[0] = __shfl_sync(all, x, 5);
    out[1] = __shfl_sync(all, x, 11, 8);
    out[2] = __shfl_up_sync(all, x, 3);
    out[3] = __shfl_up_sync(all, x, 3, 8);
    out[4] = __shfl_down_sync(all, x, 5);
    out[5] = __shfl_down_sync(all, x, 5, 16);
    out[6] = __shfl_xor_sync(all, x, 9);
    out[7] = __shfl_xor_sync(all, x, 9, 8);
    out[8] = __ballot_sync(all, x & 1);
    out[9] = __match_any_sync(all, x & 3);
    out[10] = __reduce_add_sync(all, x);
    out[11] = uint32_t(__reduce_min_sync(all, int(x)));
    out[12] = __reduce_max_sync(all, x);
    out[13] = __reduce_xor_sync(all, x);
    out[14] = uint32_t(__any_sync(all, x == 0)) | uint32_t(__all_sync(all, x != 0)) << 1;
    out[15] = __reduce_and_sync(all, x);
}

// Input [count], output [count, 12]: conversions of floats, and integer instructions on their bits.
KERNEL(conformance_conversions, ConformanceParams, 32) {
    const uint32_t* in = static_cast<const uint32_t*>(p.input);
    for (int i = threadIdx.x; i < p.count; i += 32) {
        const uint32_t bits = in[i];
        const float x = __uint_as_float(bits);
        uint32_t* out = static_cast<uint32_t*>(p.output) + i * 12;
        out[0] = __bfloat16_as_ushort(__float2bfloat16_rn(x));
        out[1] = __half_as_ushort(__float2half_rn(x));
        out[2] = to_tf32(x);
        out[3] = uint32_t(__float2int_rn(x));
        out[4] = uint32_t(__float2int_rz(x));
        out[5] = __float2uint_rn(x);
        out[6] = __byte_perm(bits, ~bits, 0x7a31);
        out[7] = uint32_t(__dp4a(int(bits), int(bits ^ 0x80402010u), 7));
        out[8] = __umulhi(bits, 0xCD9E8D57u);
        out[9] = uint32_t(__clz(int(bits)) | __ffs(int(bits)) << 8 | __popc(bits) << 16);
        out[10] = __brev(bits);
        out[11] = __funnelshift_l(bits, ~bits, bits & 31);
    }
}

// Input [count] floats, output [count, 8] floats: functions that are approximate on a GPU.
KERNEL(conformance_fast_math, ConformanceParams, 32) {
    const float* in = static_cast<const float*>(p.input);
    for (int i = threadIdx.x; i < p.count; i += 32) {
        const float x = in[i];
        float* out = static_cast<float*>(p.output) + i * 8;
        out[0] = exp2f(x);
        out[1] = __expf(x);
        out[2] = __logf(x);
        out[3] = __fdividef(1.0f, x);
        out[4] = rsqrtf(x);
        out[5] = __sinf(x);
        out[6] = __cosf(x);
        out[7] = __frcp_rn(x);
    }
}

// Input [count, counter 4, key 2], output [count, 4].
KERNEL(conformance_philox, ConformanceParams, 32) {
    const uint32_t* in = static_cast<const uint32_t*>(p.input);
    for (int i = threadIdx.x; i < p.count; i += 32) {
        const uint32_t* c = in + i * 6;
        const uint4 words = philox4x32(make_uint4(c[0], c[1], c[2], c[3]), make_uint2(c[4], c[5]));
        uint32_t* out = static_cast<uint32_t*>(p.output) + i * 4;
        out[0] = words.x;
        out[1] = words.y;
        out[2] = words.z;
        out[3] = words.w;
    }
}
