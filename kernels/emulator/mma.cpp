// Warp-wide matrix instructions: fragments to matrices and back, and loads of fragments from shared memory.
#include <cstring>

#include "checker.h"
#include "tensor_core.h"
#include "worker.h"

namespace emulator {
namespace {

constexpr uint32_t kWarp = 0xffffffffu;

struct Mma {
    float* d;
    const uint32_t *a, *b;
    uint32_t metadata;
    int selector;
};

const Mma& argument(void* const* arguments, int lane) {
    return *static_cast<const Mma*>(arguments[lane]);
}

void need_whole_warp(uint32_t mask, const char* what) {
    if (mask != kWarp) fail(worker->current->site, "%s: lanes %08x have exited", what, ~mask);
}

template <int K> struct Operands {
    alignas(32) float a[16][K];
    alignas(32) float b[K][8];
    alignas(32) float d[16][8];
    int a_exponents[16][K];
    alignas(32) int b_exponents[K][8];

    void set_a(int row, int k, Widened x) {
        a[row][k] = x.value;
        a_exponents[row][k] = x.exponent;
    }
    void set_b(int k, int column, Widened x) {
        b[k][column] = x.value;
        b_exponents[k][column] = x.exponent;
    }
};

// The accumulator's element i of a lane: rows g and g + 8, columns 2t and 2t + 1, for g = lane / 4 and t = lane % 4.
template <class Visit> void each_accumulator(void* const* arguments, Visit visit) {
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            visit(argument(arguments, lane).d[i], lane / 4 + (i >> 1) * 8, lane % 4 * 2 + (i & 1));
}

template <int K> void multiply(Operands<K>& x, void* const* arguments, Element element) {
    const Accumulation model = accumulation(worker->launch->request->arch, element);
    each_accumulator(arguments, [&](float& d, int row, int column) { x.d[row][column] = d; });
    for (int row = 0; row < 16; row++)
        multiply_row(x.d[row], x.a[row], x.a_exponents[row], x.b[0], x.b_exponents[0], 8, K, nullptr, model);
    each_accumulator(arguments, [&](float& d, int row, int column) { d = x.d[row][column]; });
}

template <Element element> void run_mma_k16(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "mma");
    worker->stats.mma++;
    Operands<16> x;
    for (int lane = 0; lane < 32; lane++) {
        const Mma& m = argument(arguments, lane);
        const int g = lane / 4, t = lane % 4 * 2;
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 4; i++)
                x.set_a(g + (i & 1) * 8, t + (i >> 1) * 8 + half, widen(m.a[i] >> 16 * half & 0xffff, element));
            for (int i = 0; i < 2; i++) x.set_b(t + i * 8 + half, g, widen(m.b[i] >> 16 * half & 0xffff, element));
        }
    }
    multiply(x, arguments, element);
}

void run_mma_k8_tf32(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "mma");
    worker->stats.mma++;
    Operands<8> x;
    for (int lane = 0; lane < 32; lane++) {
        const Mma& m = argument(arguments, lane);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) x.set_a(g + (i & 1) * 8, t + (i >> 1) * 4, widen(m.a[i], Element::Tf32));
        for (int i = 0; i < 2; i++) x.set_b(t + i * 4, g, widen(m.b[i], Element::Tf32));
    }
    multiply(x, arguments, Element::Tf32);
}

struct MatrixLoad {
    const void* row;
    uint32_t* out;
};

template <int Matrices, bool Transposed> void run_ldmatrix(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "ldmatrix");
    LkStats& stats = worker->stats;
    stats.ldmatrix++;
    const auto load = [&](int lane) -> const MatrixLoad& { return *static_cast<const MatrixLoad*>(arguments[lane]); };
    for (int matrix = 0; matrix < Matrices; matrix++) {
        uint16_t rows[8][8];
        unsigned banks = 0;
        for (int i = 0; i < 8; i++) {
            const void* row = load(8 * matrix + i).row;
            memcpy(rows[i], row, 16);
            const unsigned bank = 1u << (uintptr_t(row) / 16 % 8);
            stats.bank_conflicts += (banks & bank) != 0;
            banks |= bank;
        }
        for (int lane = 0; lane < 32; lane++) {
            const int i = lane / 4, j = lane % 4 * 2;
            const uint32_t low = Transposed ? rows[j][i] : rows[i][j], high = Transposed ? rows[j + 1][i] : rows[i][j + 1];
            load(lane).out[matrix] = low | high << 16;
        }
    }
}

struct MatrixStore {
    void* row;
    const uint32_t* in;
};

template <int Matrices, bool Transposed> void run_stmatrix(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "stmatrix");
    for (int matrix = 0; matrix < Matrices; matrix++)
        for (int lane = 0; lane < 32; lane++) {
            const uint32_t word = static_cast<const MatrixStore*>(arguments[lane])->in[matrix];
            for (int half = 0; half < 2; half++) {
                const int i = lane / 4, j = lane % 4 * 2 + half;
                auto* row = static_cast<uint16_t*>(
                    static_cast<const MatrixStore*>(arguments[8 * matrix + (Transposed ? j : i)])->row);
                row[Transposed ? i : j] = uint16_t(word >> 16 * half);
            }
        }
}

struct Transpose {
    uint32_t in, out;
};

void run_movmatrix(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "movmatrix");
    uint16_t matrix[8][8];
    const auto lane_of = [&](int lane) -> Transpose& { return *static_cast<Transpose*>(arguments[lane]); };
    for (int lane = 0; lane < 32; lane++)
        for (int half = 0; half < 2; half++)
            matrix[lane / 4][lane % 4 * 2 + half] = uint16_t(lane_of(lane).in >> 16 * half);
    for (int lane = 0; lane < 32; lane++) {
        const int i = lane / 4, j = lane % 4 * 2;
        lane_of(lane).out = matrix[j][i] | uint32_t(matrix[j + 1][i]) << 16;
    }
}

}  // namespace

void ldmatrix(uint32_t* out, const void* row, int matrices, bool transposed, Site site) {
    if (lane_index() < 8 * matrices) check_shared(row, 16, 16, "ldmatrix", site);
    MatrixLoad load{row, out};
    static constexpr Collective plain[] = {run_ldmatrix<1, false>, run_ldmatrix<2, false>, run_ldmatrix<4, false>};
    static constexpr Collective turned[] = {run_ldmatrix<1, true>, run_ldmatrix<2, true>, run_ldmatrix<4, true>};
    collective(kWarp, (transposed ? turned : plain)[matrices / 2], &load, "ldmatrix", site);
}

void stmatrix(void* row, const uint32_t* in, int matrices, bool transposed, Site site) {
    if (lane_index() < 8 * matrices) check_shared(row, 16, 16, "stmatrix", site);
    MatrixStore store{row, in};
    static constexpr Collective plain[] = {run_stmatrix<1, false>, run_stmatrix<2, false>, run_stmatrix<4, false>};
    static constexpr Collective turned[] = {run_stmatrix<1, true>, run_stmatrix<2, true>, run_stmatrix<4, true>};
    collective(kWarp, (transposed ? turned : plain)[matrices / 2], &store, "stmatrix", site);
}

uint32_t movmatrix(uint32_t fragment, Site site) {
    Transpose transpose{fragment, 0};
    collective(kWarp, run_movmatrix, &transpose, "movmatrix", site);
    return transpose.out;
}

void mma_k16(float* d, const uint32_t* a, const uint32_t* b, Element element, Site site) {
    Mma mma{d, a, b, 0, 0};
    collective(kWarp, element == Element::Bf16 ? run_mma_k16<Element::Bf16> : run_mma_k16<Element::F16>, &mma, "mma",
               site);
}

void mma_k8_tf32(float* d, const uint32_t* a, const uint32_t* b, Site site) {
    Mma mma{d, a, b, 0, 0};
    collective(kWarp, run_mma_k8_tf32, &mma, "mma", site);
}

}  // namespace emulator
