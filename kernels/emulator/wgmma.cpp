// Asynchronous products of a warpgroup: each of its warps computes 16 of the 64 rows.
#include <cstring>

#include "checker.h"
#include "tensor_core.h"
#include "tensor_map.h"
#include "worker.h"

namespace emulator {
namespace {

constexpr uint32_t kWarp = 0xffffffffu;
constexpr int kDepth = 16;
// What hidden registers hold: a signalling NaN, which any arithmetic turns into another.
constexpr uint32_t kHidden = 0x7fa0dead;

WgmmaWarp& current_warp() {
    return worker->wgmma[worker->current->warp];
}

// A matrix in shared memory as a descriptor describes it, with 128-byte swizzle; rows are m or n, columns k.
struct Operand {
    uint64_t start, leading, stride;
    bool transposed;  // n is contiguous, not k

    Operand(uint64_t descriptor, bool transposed)
        : start((descriptor & 0x3fff) << 4), leading((descriptor >> 16 & 0x3fff) << 4),
          stride((descriptor >> 32 & 0x3fff) << 4), transposed(transposed) {}

    // Of the chunk of eight elements that holds (row, k), counted from the shared window.
    uint64_t chunk(int row, int k) const {
        const uint64_t r = uint64_t(row), c = uint64_t(k);
        const uint64_t plain = transposed ? r / 64 * leading + r % 64 / 8 * 16 + c % 8 * 128 + c / 8 * stride
                                          : r / 8 * stride + r % 8 * 128 + c / 8 * 16;
        return swizzled(start + plain, 128);
    }
    template <class Visit> void each_chunk(int rows, Visit visit) const {
        for (int row = 0; row < rows; row += transposed ? 8 : 1)
            for (int k = 0; k < kDepth; k += transposed ? 1 : 8) visit(row, k, worker->shared.window() + chunk(row, k));
    }
};

Operand operand_a(const WgmmaCall& call, int warp) {
    Operand a(call.a, false);
    a.start += uint64_t(warp % 4) * 2 * a.stride;  // sixteen rows a warp
    return a;
}

void check_operand(const Operand& operand, int rows, const char* name, Site site) {
    if (operand.start % 1024 & 0x380)
        fail(site, "wgmma: descriptor of %s: misaligned: its rows begin at no multiple of 1024", name);
    operand.each_chunk(rows, [&](int, int, unsigned char* chunk) {
        check_shared(chunk, 16, 16, "wgmma operand", site);
        checker::access(*worker, chunk, 16, false, checker::Kind::Wgmma, site);
    });
}

void execute(WgmmaWarp& state, const WgmmaOperation& operation, int warp) {
    const WgmmaCall& call = operation.call;
    alignas(32) uint16_t a[16][kDepth], b[kDepth][kMaxColumns];
    if (call.a_registers) {
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++)
                memcpy(&a[lane / 4 + (i & 1) * 8][lane % 4 * 2 + (i >> 1) * 8], &operation.a_registers[lane][i], 4);
    } else {
        operand_a(call, warp).each_chunk(
            16, [&](int row, int k, const unsigned char* chunk) { memcpy(&a[row][k], chunk, 16); });
    }
    uint16_t* columns = b[0];
    Operand(call.b, call.b_transposed).each_chunk(call.columns, [&](int n, int k, unsigned char* chunk) {
        uint16_t elements[8];
        memcpy(elements, chunk, 16);
        for (int i = 0; i < 8; i++)
            columns[(call.b_transposed ? k : k + i) * call.columns + (call.b_transposed ? n + i : n)] = elements[i];
    });
    Accumulators& d = state.accumulators[size_t(operation.accumulators)];
    if (!call.accumulate) std::fill(d.values.begin(), d.values.end(), 0.0f);
    const MatrixProduct product{d.values.data(), a, columns, kDepth, kDepth, call.columns, nullptr};
    multiply(product, call.element, worker->launch->request->arch);
    worker->stats.mma += uint64_t(call.columns) / 8;
}

void execute_up_to(WgmmaWarp& state, size_t end, int warp) {
    for (; state.executed < end; state.executed++) execute(state, state.operations[state.executed], warp);
}

// The registers of a lane hold rows g and g + 8, columns 8j + 2t and the next: in order of j, row, column.
float& value_of(Accumulators& d, int lane, int i) {
    const int row = lane / 4 + (i >> 1 & 1) * 8, column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
    return d.values[size_t(row * d.columns + column)];
}

void need_hidden(const Accumulators& d, Site site) {
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < d.columns / 2; i++) {
            uint32_t bits;
            memcpy(&bits, &d.registers[lane][i], sizeof bits);
            if (bits != kHidden)
                fail(site, "accumulator %d of lane %d was written before wgmma.wait", i, lane);
        }
}

Fiber& lane_of(int lane) {
    return *worker->warps[worker->current->warp].fibers[lane];
}

void hide(Accumulators& d) {
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < d.columns / 2; i++) {
            value_of(d, lane, i) = d.registers[lane][i];
            memcpy(&d.registers[lane][i], &kHidden, sizeof kHidden);
        }
        lane_of(lane).hidden.push_back({d.registers[lane], d.registers[lane] + d.columns / 2});
    }
    d.hidden = true;
}

void show(Accumulators& d, uint32_t fences) {
    d.shown.resize(size_t(16 * d.columns));
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < d.columns / 2; i++)
            d.shown[size_t(lane * d.columns / 2 + i)] = d.registers[lane][i] = value_of(d, lane, i);
        auto& hidden = lane_of(lane).hidden;
        for (size_t i = hidden.size(); i-- > 0;)
            if (hidden[i].begin == d.registers[lane]) hidden.erase(hidden.begin() + long(i));
    }
    d.hidden = false;
    d.fences = fences;
}

// The registers were changed since the last wait, and no fence has ordered that before the next product.
bool changed_without_fence(const Accumulators& d, uint32_t fences) {
    if (d.shown.empty() || d.fences != fences) return false;
    for (int lane = 0; lane < 32; lane++)
        if (memcmp(d.registers[lane], d.shown.data() + lane * d.columns / 2, size_t(d.columns) * 2)) return true;
    return false;
}

const WgmmaCall& call_of(void* const* arguments, int lane) {
    return *static_cast<const WgmmaCall*>(arguments[lane]);
}

int find_accumulators(WgmmaWarp& state, void* const* arguments) {
    const WgmmaCall& first = call_of(arguments, 0);
    for (size_t i = 0; i < state.accumulators.size(); i++) {
        const Accumulators& known = state.accumulators[i];
        if (known.registers[0] == first.d && known.columns == first.columns) return int(i);
    }
    Accumulators fresh{};
    for (int lane = 0; lane < 32; lane++) fresh.registers[lane] = call_of(arguments, lane).d;
    fresh.columns = first.columns;
    fresh.values.resize(size_t(16 * first.columns));
    state.accumulators.push_back(fresh);
    return int(state.accumulators.size()) - 1;
}

void need_all_lanes(uint32_t mask, const char* what) {
    if (mask != kWarp) fail(worker->current->site, "%s: lanes %08x have exited", what, ~mask);
}

void run_wgmma(void* const* arguments, uint32_t mask) {
    need_all_lanes(mask, "wgmma");
    Worker& w = *worker;
    const Site site = w.current->site;
    const int warp = w.current->warp;
    WgmmaWarp& state = w.wgmma[warp];
    WgmmaOperation operation{call_of(arguments, 0), {}, 0, site};
    const WgmmaCall& call = operation.call;
    for (int lane = 0; lane < 32; lane++) {
        const WgmmaCall& other = call_of(arguments, lane);
        if (other.a != call.a || other.b != call.b || other.accumulate != call.accumulate)
            fail(site, "wgmma: descriptors differ between lanes 0 and %d", lane);
        if (call.a_registers) memcpy(operation.a_registers[lane], other.a_registers, 16);
    }
    if ((warp | 3) >= w.launch->warps) fail(site, "wgmma: warp %d is in no whole warpgroup", warp);
    if (!state.fences) fail(site, "wgmma without a wgmma.fence before it");
    if (call.a_registers && !state.fenced_since_commit)
        fail(site, "wgmma of a fragment in registers without a wgmma.fence since the last commit");
    operation.accumulators = find_accumulators(state, arguments);
    Accumulators& d = state.accumulators[size_t(operation.accumulators)];
    if (d.hidden) need_hidden(d, site);
    else if (call.accumulate && changed_without_fence(d, state.fences))
        fail(site, "accumulators changed without a wgmma.fence after it");
    if (!call.a_registers) check_operand(operand_a(call, warp), 16, "a", site);
    check_operand(Operand(call.b, call.b_transposed), call.columns, "b", site);
    if (!d.hidden) hide(d);
    d.under_way++;
    state.operations.push_back(operation);
    if (!toss(2)) execute_up_to(state, state.operations.size(), warp);
}

void run_fence(void* const*, uint32_t mask) {
    need_all_lanes(mask, "wgmma.fence");
    WgmmaWarp& state = current_warp();
    state.fences++;
    state.fenced_since_commit = true;
}

void run_commit(void* const*, uint32_t mask) {
    need_all_lanes(mask, "wgmma.commit");
    WgmmaWarp& state = current_warp();
    state.groups.push_back(state.operations.size());
    state.fenced_since_commit = false;
    checker::commit_wgmma(*worker, worker->current->warp);
}

void run_wait(void* const* arguments, uint32_t mask) {
    need_all_lanes(mask, "wgmma.wait");
    Worker& w = *worker;
    WgmmaWarp& state = current_warp();
    const size_t left = size_t(*static_cast<const int*>(arguments[0]));
    checker::wait_wgmma(w, w.current->warp, left);
    if (state.groups.size() <= left) return;
    const size_t groups = state.groups.size() - left, done = state.groups[groups - 1];
    execute_up_to(state, done, w.current->warp);
    for (size_t i = 0; i < done; i++) state.accumulators[size_t(state.operations[i].accumulators)].under_way--;
    state.operations.erase(state.operations.begin(), state.operations.begin() + long(done));
    state.executed -= done;
    state.groups.erase(state.groups.begin(), state.groups.begin() + long(groups));
    for (size_t& end : state.groups) end -= done;
    for (Accumulators& d : state.accumulators) {
        if (!d.hidden || d.under_way) continue;
        need_hidden(d, w.current->site);
        show(d, state.fences);
    }
}

}  // namespace

void reset_wgmma(Worker& w) {
    for (int i = 0; i < w.launch->warps; i++) w.wgmma[i] = WgmmaWarp{};
}

void check_wgmma_at_exit(Worker& w, Fiber& fiber) {
    const auto& operations = w.wgmma[fiber.warp].operations;
    if (!operations.empty())
        fail(operations[0].site, "a thread exits before its warp has committed and waited for wgmma");
}

uint64_t shared_descriptor(const void* address, int leading_bytes, int stride_bytes, Site site) {
    check_shared(address, 16, 16, "wgmma descriptor", site);
    const auto offset = uint64_t(static_cast<const unsigned char*>(address) - worker->shared.window());
    return offset >> 4 | uint64_t(leading_bytes >> 4) << 16 | uint64_t(stride_bytes >> 4) << 32 | 1ull << 62;
}

void wgmma(const WgmmaCall& call, Site site) {
    WgmmaCall copy = call;
    collective(kWarp, run_wgmma, &copy, "wgmma", site);
}

void wgmma_fence(Site site) {
    if (site_skipped(site, "wgmma fence")) return;
    collective(kWarp, run_fence, nullptr, "wgmma.fence", site);
}

void wgmma_commit(Site site) {
    if (site_skipped(site, "wgmma commit")) return;
    collective(kWarp, run_commit, nullptr, "wgmma.commit", site);
}

void wgmma_wait(int newest_left, Site site) {
    if (site_skipped(site, "wgmma wait")) return;
    collective(kWarp, run_wait, &newest_left, "wgmma.wait", site);
}

}  // namespace emulator
