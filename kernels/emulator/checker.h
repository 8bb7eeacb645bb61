// The race checker's view of what happens, from the runtime. Does nothing for kernels compiled without instrumentation.
#pragma once
#include "worker.h"

#pragma GCC visibility push(hidden)
namespace emulator::checker {

inline void sync_warp(Worker&, int, uint32_t) {}
inline void barrier_arrive(Worker&, int) {}
inline void barrier_complete(Worker&, int, bool) {}
inline void thread_fence(Worker&) {}
inline void atomic(Worker&, void*, int, Site) {}

struct LaunchLock {
    explicit LaunchLock(bool) {}
};

}  // namespace emulator::checker
#pragma GCC visibility pop
