// Atomic read-modify-write on 4 and 8 bytes, in shared or global memory.
#pragma once
#include "collectives.h"

namespace emulator {

// Replaces *address by next(*address) and returns the value before.
template <class T, class Next> inline T atomic_update(T* address, Next next, Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics work on four or eight bytes");
    uint64_t seen = atomic_begin(address, sizeof(T), site);
    while (!atomic_exchange_if(address, sizeof(T), &seen, to_word<T>(next(from_word<T>(seen))))) {}
    return from_word<T>(seen);
}
}  // namespace emulator

template <class T> inline T atomicAdd(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return T(old + value); }, site);
}
template <class T> inline T atomicSub(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return T(old - value); }, site);
}
template <class T> inline T atomicMin(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return value < old ? value : old; }, site);
}
template <class T> inline T atomicMax(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return old < value ? value : old; }, site);
}
template <class T> inline T atomicAnd(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return T(old & value); }, site);
}
template <class T> inline T atomicOr(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return T(old | value); }, site);
}
template <class T> inline T atomicXor(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return T(old ^ value); }, site);
}
template <class T> inline T atomicExch(T* address, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T) { return value; }, site);
}
template <class T>
inline T atomicCAS(T* address, emulator::SameT<T> compare, emulator::SameT<T> value, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](T old) { return old == compare ? value : old; }, site);
}
inline unsigned atomicInc(unsigned* address, unsigned last, EMULATOR_SITE) {
    return emulator::atomic_update(address, [=](unsigned old) { return old >= last ? 0u : old + 1; }, site);
}
inline unsigned atomicDec(unsigned* address, unsigned last, EMULATOR_SITE) {
    return emulator::atomic_update(
        address, [=](unsigned old) { return old == 0 || old > last ? last : old - 1; }, site);
}
