// Block barriers, warp collectives, votes and shuffles.
#include <cstring>

#include "checker.h"
#include "worker.h"

namespace emulator {
namespace {

constexpr int kWholeBlock = 0;

struct Shuffle {
    uint64_t value, result;
    int source;
};

void run_shuffle(void* const* arguments, uint32_t mask) {
    worker->stats.shuffles++;
    for (uint32_t left = mask; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        auto& own = *static_cast<Shuffle*>(arguments[lane]);
        if (own.source < 0) own.result = own.value;
        else if (mask >> own.source & 1) own.result = static_cast<Shuffle*>(arguments[own.source])->value;
        else fail(worker->current->site, "shuffle: lane %d reads lane %d, which is outside the mask %08x or has exited",
                  lane, own.source, mask);
    }
}

struct Ballot {
    uint32_t value, result;
    Vote kind;
};

uint32_t fold(Vote kind, uint32_t a, uint32_t b) {
    switch (kind) {
    case Vote::Add: return a + b;
    case Vote::MinUnsigned: return a < b ? a : b;
    case Vote::MaxUnsigned: return a < b ? b : a;
    case Vote::MinSigned: return int32_t(a) < int32_t(b) ? a : b;
    case Vote::MaxSigned: return int32_t(a) < int32_t(b) ? b : a;
    case Vote::And: return a & b;
    case Vote::Or: return a | b;
    default: return a ^ b;
    }
}

void run_vote(void* const* arguments, uint32_t mask) {
    worker->stats.shuffles++;
    const Vote kind = static_cast<Ballot*>(arguments[__builtin_ctz(mask)])->kind;
    uint32_t result = 0;
    bool first = true;
    for (uint32_t left = mask; left; left &= left - 1, first = false) {
        const int lane = __builtin_ctz(left);
        const uint32_t value = static_cast<Ballot*>(arguments[lane])->value;
        if (kind == Vote::Ballot) result |= value << lane;
        else result = first ? value : fold(kind, result, value);
    }
    for (uint32_t left = mask; left; left &= left - 1)
        static_cast<Ballot*>(arguments[__builtin_ctz(left)])->result = result;
}

void run_match(void* const* arguments, uint32_t mask) {
    worker->stats.shuffles++;
    for (uint32_t left = mask; left; left &= left - 1) {
        auto& own = *static_cast<Shuffle*>(arguments[__builtin_ctz(left)]);
        own.result = 0;
        for (uint32_t others = mask; others; others &= others - 1) {
            const int lane = __builtin_ctz(others);
            if (static_cast<Shuffle*>(arguments[lane])->value == own.value) own.result |= 1u << lane;
        }
    }
}

void run_sync_warp(void* const*, uint32_t mask) {
    checker::sync_warp(*worker, worker->current->warp, mask);
}

// Executes a collective when every lane of the mask that has not exited is there.
bool try_collective(Warp& warp, uint32_t mask) {
    const uint32_t present = mask & warp.live;
    if ((warp.waiting & present) != present) return false;
    void* arguments[32] = {};
    const Fiber& first = *warp.fibers[__builtin_ctz(present)];
    for (uint32_t left = present; left; left &= left - 1) {
        const Fiber& fiber = *warp.fibers[__builtin_ctz(left)];
        if (fiber.mask != mask) return false;
        if (fiber.collective != first.collective)
            fail(first.site, "warp collective mismatch: lane %d is at %s, lane %d at %s (%s)", first.lane,
                 first.primitive, fiber.lane, fiber.primitive, describe_site(fiber.site).c_str());
        arguments[fiber.lane] = fiber.argument;
    }
    warp.waiting &= ~present;
    first.collective(arguments, present);
    for (uint32_t left = present; left; left &= left - 1) {
        Fiber& fiber = *warp.fibers[__builtin_ctz(left)];
        if (fiber.state == State::AtCollective) wake(fiber);
    }
    return true;
}

Barrier& arrive(int id, int threads, Site site, const char* primitive) {
    Worker& w = *worker;
    enter(primitive, site);
    if (id < 0 || id >= kBarriers) fail(site, "barrier %d: there are %d", id, kBarriers);
    Barrier& barrier = w.barriers[id];
    const bool whole_block = threads == kWholeBlock;
    const int needed = whole_block ? w.launch->threads : threads;
    if (whole_block && w.live < w.launch->threads)
        fail(site, "__syncthreads after %d threads have exited", w.launch->threads - w.live);
    if (!whole_block && (threads % 32 || threads > w.launch->threads))
        fail(site, "barrier %d for %d threads: needs a multiple of 32, at most the block's %d", id, threads,
             w.launch->threads);
    if (barrier.arrived == 0) {
        barrier.needed = needed;
        barrier.site = site;
        barrier.whole_block = whole_block;
        barrier.predicates = 0;
    } else if (barrier.needed != needed) {
        fail(site, "barrier %d: %d threads expected here, %d at %s", id, needed, barrier.needed,
             describe_site(barrier.site).c_str());
    } else if (whole_block && (barrier.site.line != site.line || strcmp(barrier.site.file, site.file))) {
        fail(site, "divergent __syncthreads: other threads are at %s", describe_site(barrier.site).c_str());
    }
    barrier.arrived++;
    w.stats.barriers++;
    w.current->barrier = id;
    checker::barrier_arrive(w, id);
    return barrier;
}

void release_if_complete(Worker& w, Barrier& barrier) {
    if (barrier.arrived < barrier.needed) return;
    checker::barrier_complete(w, int(&barrier - w.barriers));
    for (Fiber* fiber : barrier.sleepers) wake(*fiber);
    barrier.sleepers.clear();
    barrier.arrived = 0;
    barrier.counted = barrier.predicates;
}

void sync(Barrier& barrier) {
    Worker& w = *worker;
    barrier.sleepers.push_back(w.current);
    w.current->mask = 0;
    const bool last = barrier.arrived == barrier.needed;
    if (!last) return sleep_current(State::AtBarrier);
    release_if_complete(w, barrier);
    if (w.policy >= Policy::RandomWarp) yield();
}

}  // namespace

void enter(const char* primitive, Site site) {
    Fiber& fiber = *worker->current;
    fiber.primitive = primitive;
    fiber.site = site;
}

void reset_barriers(Worker& w) {
    for (Barrier& barrier : w.barriers) {
        barrier.arrived = 0;
        barrier.sleepers.clear();
    }
}

void collective(uint32_t mask, Collective run, void* argument, const char* primitive, Site site) {
    Worker& w = *worker;
    Fiber& fiber = *w.current;
    Warp& warp = w.warps[fiber.warp];
    enter(primitive, site);
    if (!(mask >> fiber.lane & 1)) fail(site, "%s: lane %d is not in its own mask %08x", primitive, fiber.lane, mask);
    fiber.mask = mask;
    fiber.collective = run;
    fiber.argument = argument;
    warp.waiting |= 1u << fiber.lane;
    if (!try_collective(warp, mask)) sleep_current(State::AtCollective);
    else if (w.policy >= Policy::RandomWarp) yield();  // lanes leave in any order
}

void lane_exits(Fiber& fiber) {
    Worker& w = *worker;
    finish_copies(fiber, fiber.copies.copies.size());
    check_bulk_at_exit(fiber);
    check_wgmma_at_exit(w, fiber);
    const Barrier& barrier = w.barriers[0];
    if (barrier.arrived && barrier.whole_block)
        fail(barrier.site, "a thread exits while %d threads wait at __syncthreads", barrier.arrived);
    Warp& warp = w.warps[fiber.warp];
    warp.live &= ~(1u << fiber.lane);
    for (uint32_t left = warp.waiting; left; left &= left - 1) {
        const Fiber& other = *warp.fibers[__builtin_ctz(left)];
        if (warp.waiting >> other.lane & other.mask >> fiber.lane & 1) try_collective(warp, other.mask);
    }
}

void sync_threads(Site site) {
    if (site_skipped(site, "syncthreads")) return;
    sync(arrive(0, kWholeBlock, site, "__syncthreads"));
}

int sync_threads_count(int predicate, Site site) {
    if (site_skipped(site, "syncthreads")) return predicate;
    Barrier& barrier = arrive(0, kWholeBlock, site, "__syncthreads");
    barrier.predicates += predicate;
    sync(barrier);
    return barrier.counted;  // the next barrier cannot complete before every thread has read this
}

void barrier_sync(int id, int threads, Site site) {
    if (site_skipped(site, "barrier")) return;
    sync(arrive(id, threads, site, "named barrier"));
}

void barrier_arrive(int id, int threads, Site site) {
    if (site_skipped(site, "barrier")) return;
    release_if_complete(*worker, arrive(id, threads, site, "named barrier arrive"));
}

void sync_warp(uint32_t mask, Site site) {
    if (site_skipped(site, "syncwarp")) return;
    collective(mask, run_sync_warp, nullptr, "__syncwarp", site);
}

void thread_fence(Site site) {
    if (site_skipped(site, "threadfence")) return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    checker::thread_fence(*worker);
}

void pause_thread() {
    yield();
}

uint64_t shuffle(uint32_t mask, uint64_t value, int source, Site site) {
    Shuffle argument{value, value, source};
    collective(mask, run_shuffle, &argument, "shuffle", site);
    return argument.result;
}

uint32_t vote(uint32_t mask, uint32_t value, Vote kind, Site site) {
    Ballot argument{value, 0, kind};
    collective(mask, run_vote, &argument, "vote", site);
    return argument.result;
}

uint32_t match_any(uint32_t mask, uint64_t value, Site site) {
    Shuffle argument{value, 0, 0};
    collective(mask, run_match, &argument, "match", site);
    return uint32_t(argument.result);
}

// The lanes that are not known to wait elsewhere; kernels may rely on their own bit alone.
uint32_t active_mask() {
    return 1u << worker->current->lane;
}

}  // namespace emulator
