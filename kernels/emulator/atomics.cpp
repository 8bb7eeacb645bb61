#include "checker.h"
#include "worker.h"

namespace emulator {

uint64_t atomic_begin(void* address, int bytes, Site site) {
    enter("atomic", site);
    if (uintptr_t(address) % size_t(bytes)) fail(site, "atomic: misaligned: %p", address);
    checker::access(*worker, address, size_t(bytes), true, checker::Kind::Atomic, site);
    if (bytes == 4) return __atomic_load_n(static_cast<uint32_t*>(address), __ATOMIC_RELAXED);
    return __atomic_load_n(static_cast<uint64_t*>(address), __ATOMIC_RELAXED);
}

bool atomic_exchange_if(void* address, int bytes, uint64_t* seen, uint64_t value) {
    if (bytes == 8)
        return __atomic_compare_exchange_n(static_cast<uint64_t*>(address), seen, value, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED);
    uint32_t old = uint32_t(*seen);
    const bool done = __atomic_compare_exchange_n(static_cast<uint32_t*>(address), &old, uint32_t(value), false,
                                                  __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    *seen = old;
    return done;
}

}  // namespace emulator
