// mbarriers: phases that end when all arrivals are in and all expected bytes have come.
#include "checker.h"
#include "checker_clocks.h"
#include "worker.h"

namespace emulator {
namespace {

constexpr uint64_t kMark = 0x6d62617200000000ull;
constexpr int64_t kMostBytes = (1 << 20) - 1;

void end_phase_if_complete(Worker& w, Mbarrier& barrier) {
    if (barrier.pending || barrier.bytes) return;
    barrier.pending = barrier.count;
    barrier.phases++;
    checker::mbarrier_phase_over(w, int(&barrier - w.mbarriers.data()));
}

struct Wait {
    int index;
    unsigned parity;
};

bool phase_over(void* argument) {
    const auto& wait = *static_cast<const Wait*>(argument);
    return (worker->mbarriers[size_t(wait.index)].phases & 1) != wait.parity;
}

}  // namespace

void reset_mbarriers(Worker& w) {
    w.mbarriers.clear();
}

Mbarrier& find_mbarrier(uint64_t* word, bool for_copy, Site site) {
    Worker& w = *worker;
    check_shared(word, 8, 8, "mbarrier", site);
    checker::access(w, word, 8, false, for_copy ? checker::Kind::Probe : checker::Kind::Plain, site);
    const uint64_t index = *word ^ kMark;
    if (index >= w.mbarriers.size() || w.mbarriers[index].word != word)
        fail(site, "mbarrier that has not been initialised, or has been overwritten");
    return w.mbarriers[index];
}

void add_bytes(int index, int64_t bytes) {
    Worker& w = *worker;
    Mbarrier& barrier = w.mbarriers[size_t(index)];
    barrier.bytes += bytes;
    if (barrier.bytes > kMostBytes || barrier.bytes < -kMostBytes)
        record_failure("mbarrier: more than 2^20 - 1 bytes under way", Site{});
    end_phase_if_complete(w, barrier);
}

void mbarrier_init(uint64_t* word, int arrivals, Site site) {
    Worker& w = *worker;
    enter("mbarrier.init", site);
    check_shared(word, 8, 8, "mbarrier", site);
    checker::access(w, word, 8, true, checker::Kind::Plain, site);
    if (arrivals < 1 || arrivals > kMostBytes) fail(site, "mbarrier.init: %d arrivals", arrivals);
    for (const Mbarrier& other : w.mbarriers)
        if (other.word == word) fail(site, "mbarrier initialised twice");
    if (int(w.mbarriers.size()) == checker::Clocks::kMbarriers)
        fail(site, "more than %d mbarriers in a block", checker::Clocks::kMbarriers);
    *word = kMark | w.mbarriers.size();
    w.mbarriers.push_back(Mbarrier{word, uint32_t(arrivals), uint32_t(arrivals), 0, 0, 0, 0});
}

void mbarrier_invalidate(uint64_t* word, Site site) {
    Mbarrier& barrier = find_mbarrier(word, false, site);
    checker::access(*worker, word, 8, true, checker::Kind::Plain, site);
    barrier.word = nullptr;
    *word = ~0ull;
}

void mbarrier_arrive(uint64_t* word, int expected_bytes, Site site) {
    Worker& w = *worker;
    enter("mbarrier.arrive", site);
    if (site_skipped(site, expected_bytes ? "mbarrier expect" : "mbarrier arrive")) return;
    Mbarrier& barrier = find_mbarrier(word, false, site);
    const int index = int(&barrier - w.mbarriers.data());
    if (!barrier.pending) fail(site, "mbarrier: more arrivals in a phase than the %u it waits for", barrier.count);
    checker::mbarrier_arrive(w, index);
    barrier.pending--;
    add_bytes(index, expected_bytes);
}

void mbarrier_wait(uint64_t* word, unsigned parity, Site site) {
    Worker& w = *worker;
    enter("mbarrier wait", site);
    if (site_skipped(site, "mbarrier wait")) return;
    Wait wait{int(&find_mbarrier(word, false, site) - w.mbarriers.data()), parity & 1};
    wait_until(phase_over, &wait, "mbarrier wait", site);
    Mbarrier& barrier = w.mbarriers[size_t(wait.index)];
    barrier.waited = barrier.phases;
    checker::mbarrier_passed(w, wait.index, wait.parity);
}

void proxy_fence(Site site) {
    if (site_skipped(site, "proxy fence")) return;
    checker::proxy_fence(*worker);
}

void check_mbarriers_at_end(Worker& w) {
    for (const Mbarrier& barrier : w.mbarriers)
        if (barrier.last_copy_phase > barrier.waited)
            return record_failure("the block ends with a bulk copy that no thread has waited for", Site{});
}

}  // namespace emulator
