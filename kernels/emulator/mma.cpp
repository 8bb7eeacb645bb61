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

// The matrices of one product: a [16, KA], b [K, 8], d [16, 8]. Bits is one element as fragments hold it.
template <class Bits, int KA, int K> struct Product {
    alignas(32) Bits a[16][KA];
    alignas(32) Bits b[K][8];
    alignas(32) float d[16][8];

    void run(void* const* arguments, Element element, const uint8_t* rows_of_b) {
        each_accumulator(arguments, [&](float& x, int row, int column) { d[row][column] = x; });
        multiply(MatrixProduct{d[0], a, b, KA, K, 8, rows_of_b}, element, worker->launch->request->arch);
        each_accumulator(arguments, [&](float& x, int row, int column) { x = d[row][column]; });
    }

  private:
    // Element i of a lane: rows g and g + 8, columns 2t and 2t + 1, for g = lane / 4 and t = lane % 4.
    template <class Visit> static void each_accumulator(void* const* arguments, Visit visit) {
        for (int lane = 0; lane < 32; lane++) {
            float* x = argument(arguments, lane).d;
            const int row = lane / 4, column = lane % 4 * 2;
            for (int i = 0; i < 4; i++) visit(x[i], row + (i >> 1) * 8, column + (i & 1));
        }
    }
};

// Two 16-bit elements of row or column g, or one of 32 bits, at position t.
void put(uint16_t* row, int t, uint32_t word) {
    memcpy(row + 2 * t, &word, sizeof word);
}
template <class Bits, int KA, int K> void put_a(Product<Bits, KA, K>& x, int lane, const uint32_t* a) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) put(x.a[g + (i & 1) * 8], t + (i >> 1) * 4, a[i]);
}
template <class Bits, int KA, int K> void put_b(Product<Bits, KA, K>& x, int lane, const uint32_t* b) {
    const int g = lane / 4, t = lane % 4 * 2;
    for (int i = 0; i < K / 8; i++) {
        x.b[t + i * 8][g] = uint16_t(b[i]);
        x.b[t + i * 8 + 1][g] = uint16_t(b[i] >> 16);
    }
}

template <Element element> void run_mma_k16(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "mma");
    worker->stats.mma++;
    Product<uint16_t, 16, 16> x;
    for (int lane = 0; lane < 32; lane++) {
        put_a(x, lane, argument(arguments, lane).a);
        put_b(x, lane, argument(arguments, lane).b);
    }
    x.run(arguments, element, nullptr);
}

void run_mma_k8_tf32(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "mma");
    worker->stats.mma++;
    Product<uint32_t, 8, 8> x;
    for (int lane = 0; lane < 32; lane++) {
        const Mma& m = argument(arguments, lane);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) x.a[g + (i & 1) * 8][t + (i >> 1) * 4] = m.a[i];
        for (int i = 0; i < 2; i++) x.b[t + i * 4][g] = m.b[i];
    }
    x.run(arguments, Element::Tf32, nullptr);
}

// Row g's and g + 8's indices lie in the low and high halves of the metadata of two lanes of each four, which the
// selector chooses; the first has those of columns 0 to 15, the second of 16 to 31, two bits for each element kept.
template <Element element> void run_mma_sparse_k32(void* const* arguments, uint32_t mask) {
    need_whole_warp(mask, "mma.sp");
    worker->stats.mma++;
    Product<uint16_t, 16, 32> x;
    uint8_t rows_of_b[16][16];
    for (int lane = 0; lane < 32; lane++) {
        const Mma& m = argument(arguments, lane);
        put_a(x, lane, m.a);
        put_b(x, lane, m.b);
        const int half = lane % 4 - 2 * m.selector;
        if (half != 0 && half != 1) continue;
        for (int i = 0; i < 16; i++) {
            const int kept = half * 8 + i % 8, group = kept / 2;
            const int index = m.metadata >> (2 * i) & 3, row = lane / 4 + (i >> 3) * 8;
            rows_of_b[row][kept] = uint8_t(group * 4 + index);
            if (kept % 2 && rows_of_b[row][kept] <= rows_of_b[row][kept - 1])
                fail(worker->current->site, "mma.sp: row %d keeps elements %d and %d of group %d, out of order", row,
                     rows_of_b[row][kept - 1] % 4, index, group);
        }
    }
    x.run(arguments, element, rows_of_b[0]);
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
            const uint32_t low = Transposed ? rows[j][i] : rows[i][j];
            const uint32_t high = Transposed ? rows[j + 1][i] : rows[i][j + 1];
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
    if (lane_index() < 8 * matrices) {
        check_shared(row, 16, 16, "ldmatrix", site);
        checker::access(*worker, row, 16, false, checker::Kind::Plain, site);
    }
    MatrixLoad load{row, out};
    static constexpr Collective plain[] = {run_ldmatrix<1, false>, run_ldmatrix<2, false>, run_ldmatrix<4, false>};
    static constexpr Collective turned[] = {run_ldmatrix<1, true>, run_ldmatrix<2, true>, run_ldmatrix<4, true>};
    const Collective* runs = transposed ? turned : plain;
    collective(kWarp, runs[matrices / 2], &load, "ldmatrix", site);
}

void stmatrix(void* row, const uint32_t* in, int matrices, bool transposed, Site site) {
    if (lane_index() < 8 * matrices) {
        check_shared(row, 16, 16, "stmatrix", site);
        checker::access(*worker, row, 16, true, checker::Kind::Plain, site);
    }
    MatrixStore store{row, in};
    static constexpr Collective plain[] = {run_stmatrix<1, false>, run_stmatrix<2, false>, run_stmatrix<4, false>};
    static constexpr Collective turned[] = {run_stmatrix<1, true>, run_stmatrix<2, true>, run_stmatrix<4, true>};
    const Collective* runs = transposed ? turned : plain;
    collective(kWarp, runs[matrices / 2], &store, "stmatrix", site);
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

void mma_sparse_k32(float* d, const uint32_t* a, const uint32_t* b, uint32_t metadata, int selector, Element element,
                    Site site) {
    Mma mma{d, a, b, metadata, selector};
    collective(kWarp, element == Element::Bf16 ? run_mma_sparse_k32<Element::Bf16> : run_mma_sparse_k32<Element::F16>,
               &mma, "mma.sp", site);
}

void mma_k8_tf32(float* d, const uint32_t* a, const uint32_t* b, Site site) {
    Mma mma{d, a, b, 0, 0};
    collective(kWarp, run_mma_k8_tf32, &mma, "mma", site);
}

}  // namespace emulator
