// Runs the threads of a block as fibers, in an order that the schedule chooses.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "checker.h"
#include "sanitizers.h"
#include "worker.h"

namespace emulator {

__thread Worker* worker = nullptr;

namespace {

constexpr size_t kPage = 4096;
// The next lane of the sweep over a warp, null when it is over. Each lane runs at most once in a sweep.
Fiber* next_lane(Worker& w) {
    Sweep& sweep = w.sweep;
    const uint32_t ready = sweep.left & sweep.warp->runnable;
    if (!ready || w.failed) return nullptr;
    const unsigned rotation = sweep.rotation;
    const uint32_t rotated = ready >> rotation | uint64_t(ready) << (32 - rotation);
    const int first = sweep.downwards ? 31 - __builtin_clz(rotated) : __builtin_ctz(rotated);
    const unsigned lane = (unsigned(first) + rotation) & 31;
    sweep.left &= ~(1u << lane);
    w.stats.switches++;
    return sweep.warp->fibers[lane];
}

void switch_to_fiber(Worker& w, Fiber& fiber) {
    w.current = &fiber;
#if EMULATOR_ASAN
    __sanitizer_start_switch_fiber(&w.asan_stack, fiber.stack, kStackBytes);
#endif
    switch_context(w.scheduler, fiber.context);
#if EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(w.asan_stack, nullptr, nullptr);
#endif
    w.current = nullptr;
}

// Leaves the current fiber: for the next lane of the sweep, or for the scheduler.
void switch_away([[maybe_unused]] bool for_good) {
    Worker& w = *worker;
    Fiber& fiber = *w.current;
#if EMULATOR_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.asan_stack, w.scheduler_stack,
                                   w.scheduler_stack_bytes);
    switch_context(fiber.context, w.scheduler);
    __sanitizer_finish_switch_fiber(fiber.asan_stack, nullptr, nullptr);
#else
    Fiber* next = next_lane(w);
    w.current = next;
    switch_context(fiber.context, next ? next->context : w.scheduler);
#endif
}

void set_asleep(Worker& w, Fiber& fiber, State state) {
    fiber.state = state;
    Warp& warp = w.warps[fiber.warp];
    warp.runnable &= ~(1u << fiber.lane);
    if (!warp.runnable) w.runnable_warps &= ~(1u << fiber.warp);
}

void fiber_main() {
    Worker& w = *worker;
    Fiber& fiber = *w.current;
#if EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &w.scheduler_stack, &w.scheduler_stack_bytes);
#endif
    w.launch->kernel->run(w.params);
    lane_exits(fiber);
    set_asleep(w, fiber, State::Done);
    w.live--;
    switch_away(true);
    abort();
}

void start_threads(Worker& w) {
    const Launch& launch = *w.launch;
    w.live = launch.threads;
    w.runnable_warps = 0;
    for (int i = 0; i < launch.warps; i++) w.warps[i] = Warp{};
    for (int i = 0; i < launch.threads; i++) {
        Fiber& fiber = w.fibers[size_t(i)];
        ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStackBytes);  // of frames that an earlier block abandoned
        make_context(fiber.context, fiber.stack, kStackBytes, fiber_main);
        const unsigned n = unsigned(i), x = launch.block.x, y = launch.block.y;
        fiber.thread = {n % x, n / x % y, n / (x * y)};
        fiber.index = i;
        fiber.warp = i / 32;
        fiber.lane = i % 32;
        fiber.primitive = nullptr;
        fiber.mask = 0;
        fiber.copies.clear();
        fiber.bulk_open = fiber.bulk_closed = fiber.bulk_waited = 0;
        fiber.hidden.clear();
        wake(fiber);
        Warp& warp = w.warps[fiber.warp];
        warp.live |= 1u << fiber.lane;
        warp.fibers[fiber.lane] = &fiber;
    }
}

void shuffle_priorities(Worker& w) {
    const int warps = w.launch->warps;
    for (int i = 0; i < warps; i++) w.priorities[i] = w.policy == Policy::Descending ? warps - 1 - i : i;
    if (w.policy < Policy::RandomWarp) return;
    for (int i = warps - 1; i > 0; i--) std::swap(w.priorities[i], w.priorities[w.random.below(unsigned(i + 1))]);
}

Warp& next_warp(Worker& w) {
    if (w.policy == Policy::RandomWarp) {
        unsigned skip = w.random.below(unsigned(__builtin_popcount(w.runnable_warps)));
        uint32_t left = w.runnable_warps;
        while (skip--) left &= left - 1;
        return w.warps[__builtin_ctz(left)];
    }
    if (w.policy == Policy::RandomPriorities && w.random.below(32) == 0) shuffle_priorities(w);
    int i = 0;
    while (!(w.runnable_warps >> w.priorities[i] & 1)) i++;
    return w.warps[w.priorities[i]];
}

// Lets each runnable lane go on until it sleeps; a random schedule may leave some of them for later.
void run_lanes(Worker& w, Warp& warp) {
    w.sweep = Sweep{&warp, warp.runnable, 0, w.policy == Policy::Descending};
    if (w.policy >= Policy::RandomWarp) {
        const uint64_t bits = w.random.next();
        const uint32_t some = warp.runnable & uint32_t(bits >> 32);
        w.sweep = Sweep{&warp, (bits & 3) == 0 && some ? some : warp.runnable, unsigned(bits >> 8 & 31),
                        (bits >> 16 & 1) != 0};
    }
    while (Fiber* fiber = next_lane(w)) switch_to_fiber(w, *fiber);
}

bool wake_polling(Worker& w) {
    bool woke = false;
    for (int i = 0; i < w.launch->threads; i++) {
        Fiber& fiber = w.fibers[size_t(i)];
        if (fiber.state != State::Polling || !fiber.ready(fiber.argument)) continue;
        wake(fiber);
        woke = true;
    }
    return woke;
}

// Who waits where, threads that wait alike told once.
std::string sleepers(const Worker& w) {
    std::string text;
    const auto alike = [](const Fiber& a, const Fiber& b) {
        return a.state == b.state && a.mask == b.mask && a.site.line == b.site.line && a.site.file == b.site.file;
    };
    int told = 0;
    for (int i = 0, first = 0; i < w.launch->threads; i++) {
        const Fiber& fiber = w.fibers[size_t(i)];
        if (i + 1 < w.launch->threads && alike(fiber, w.fibers[size_t(i) + 1])) continue;
        const int from = first;
        first = i + 1;
        if (fiber.state == State::Done || fiber.state == State::Runnable || told++ == 12) continue;
        char line[96];
        snprintf(line, sizeof line, from == i ? "; thread %d waits at " : "; threads %d to %d wait at ", from, i);
        text += line + std::string(fiber.primitive) + " (" + describe_site(fiber.site) + ")";
        if (fiber.state == State::AtCollective) {
            snprintf(line, sizeof line, " with mask %08x", fiber.mask);
            text += line;
        }
    }
    return text;
}

}  // namespace

void prepare_fibers(Worker& w, int threads) {
    while (w.fibers.size() < size_t(threads)) {
        const size_t bytes = kStackBytes + kPage;
        char* map = static_cast<char*>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        mprotect(map, kPage, PROT_NONE);  // a stack that overflows faults
        w.fibers.emplace_back();
        w.fibers.back().stack = map + kPage;
    }
}

void free_fibers(Worker& w) {
    for (Fiber& fiber : w.fibers) {
        ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStackBytes);
        munmap(fiber.stack - kPage, kStackBytes + kPage);
    }
    w.fibers.clear();
}

void wake(Fiber& fiber) {
    fiber.state = State::Runnable;
    Worker& w = *worker;
    w.warps[fiber.warp].runnable |= 1u << fiber.lane;
    w.runnable_warps |= 1u << fiber.warp;
}

void yield() {
    switch_away(false);
}

void sleep_current(State state) {
    Worker& w = *worker;
    set_asleep(w, *w.current, state);
    switch_away(false);
}

void abandon_thread() {
    switch_away(false);
    abort();
}

void wait_until(bool (*ready)(void*), void* argument, const char* primitive, Site site) {
    Fiber& fiber = *worker->current;
    fiber.primitive = primitive;
    fiber.site = site;
    fiber.mask = 0;
    fiber.ready = ready;
    fiber.argument = argument;
    while (!ready(argument)) sleep_current(State::Polling);
}

bool toss(unsigned one_in) {
    Worker& w = *worker;
    if (w.policy == Policy::Ascending) return false;
    if (w.policy == Policy::Descending) return true;
    return w.random.below(one_in) == 0;
}

void run_block(Worker& w, Index3 block, uint64_t number) {
    const uint64_t schedule = w.launch->request->schedule;
    w.block = block;
    w.block_number = number;
    w.random.state = schedule * 0x2545f4914f6cdd1dull + number * 0x9e3779b97f4a7c15ull + 1;
    w.policy = schedule == 0   ? Policy::Ascending
               : schedule == 1 ? Policy::Descending
               : w.random.next() & 1 ? Policy::RandomWarp
                                     : Policy::RandomPriorities;
    w.shared.poison();
    w.async.clear();
    reset_barriers(w);
    reset_mbarriers(w);
    reset_wgmma(w);
    shuffle_priorities(w);
    start_threads(w);
    checker::begin_block(w);
    while (w.live && !w.failed) {
        const bool stuck = !w.runnable_warps;
        if (!w.async.empty() && (stuck || (w.policy >= Policy::RandomWarp && w.random.below(4) == 0))) run_one_async(w);
        if (!stuck) run_lanes(w, next_warp(w));
        else if (!wake_polling(w) && w.async.empty() && !w.runnable_warps && !w.failed)
            record_failure("deadlock" + sleepers(w), Site{});
    }
    while (!w.async.empty() && !w.failed) run_one_async(w);
    if (!w.failed) check_mbarriers_at_end(w);
    if (!w.failed && !w.shared.slack_untouched())
        record_failure("bytes around dynamic shared memory were written: out of bounds", Site{});
}

}  // namespace emulator
