// The race checker, as the runtime tells it what happens. It watches kernels that were compiled with the
// instrumentation of -fsanitize=thread, whose entry points are in instrumentation.cpp; for others every function here
// returns at once.
#pragma once
#include "worker.h"

#pragma GCC visibility push(hidden)
namespace emulator::checker {

// Who does an access, as far as ordering is concerned.
enum class Kind : uint8_t {
    None,
    Plain,      // the thread itself
    Atomic,
    CopyAsync,  // cp.async: done when its thread has waited for its group
    BulkLoad,   // done when the phase of its mbarrier is over
    BulkStore,  // done when its thread has waited for its bulk group
    Wgmma,      // done when its warp has waited for its group
    Probe,      // a look through the asynchronous proxy, over at once
};

void begin_launch(Worker& w);
void end_launch(Worker& w);
void begin_block(Worker& w);

// An access by the current thread at a source line, or at a code address where there is no site.
void access(Worker& w, const void* address, size_t bytes, bool write, Kind kind, Site site);
void access_at(Worker& w, const void* address, size_t bytes, bool write, bool aligned, uintptr_t code);

void sync_warp(Worker& w, int warp, uint32_t mask);
void barrier_arrive(Worker& w, int id);
void barrier_complete(Worker& w, int id);
void thread_fence(Worker& w);
void proxy_fence(Worker& w);

void commit_copies(Worker& w);
void wait_copies(Worker& w, size_t newest_left);
void commit_bulk_stores(Worker& w);
void wait_bulk_stores(Worker& w, size_t newest_left);
void commit_wgmma(Worker& w, int warp);
void wait_wgmma(Worker& w, int warp, size_t newest_left);

// An mbarrier by its number within the block, see mbarrier.h.
void mbarrier_arrive(Worker& w, int index);
void mbarrier_phase_over(Worker& w, int index);
void mbarrier_passed(Worker& w, int index, unsigned parity);
void bulk_load(Worker& w, const void* to, size_t bytes, int mbarrier, Site site);

}  // namespace emulator::checker
#pragma GCC visibility pop
