// Barriers, warp shuffles, votes and reductions.
#pragma once
#include "language.h"

#define EMULATOR_SITE emulator::Site site = emulator::here()

inline void __syncthreads(EMULATOR_SITE) {
    emulator::sync_threads(site);
}
inline int __syncthreads_count(int predicate, EMULATOR_SITE) {
    return emulator::sync_threads_count(predicate != 0, site);
}
inline int __syncthreads_or(int predicate, EMULATOR_SITE) {
    return emulator::sync_threads_count(predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, EMULATOR_SITE) {
    return emulator::sync_threads_count(predicate == 0, site) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_SITE) {
    emulator::sync_warp(mask, site);
}
inline void __threadfence(EMULATOR_SITE) {
    emulator::thread_fence(site);
}
// Within a block memory is sequentially consistent here; only barriers order it for the race checker.
inline void __threadfence_block() {}
inline unsigned __activemask() {
    return emulator::active_mask();
}
inline void __nanosleep(unsigned) {
    emulator::pause_thread();
}
inline long long clock64() {
    return static_cast<long long>(emulator::clock_ticks());
}

namespace emulator {

template <class T> inline uint64_t to_word(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a shuffle moves at most eight plain bytes");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(T));
    return word;
}
template <class T> inline T from_word(uint64_t word) {
    T value;
    memcpy(&value, &word, sizeof(T));
    return value;
}

// The lane whose value a shuffle within segments of `width` lanes returns, -1 for the lane's own.
enum class Shift { Index, Up, Down, Xor };
inline int shuffle_source(Shift shift, int lane, int delta, int width) {
    const int segment = lane & ~(width - 1), offset = lane & (width - 1);
    if (shift == Shift::Index) return segment + (delta & (width - 1));
    if (shift == Shift::Xor) {
        const int source = lane ^ delta;
        return source < segment + width ? source : -1;
    }
    const int source = shift == Shift::Up ? offset - delta : offset + delta;
    return source < 0 || source >= width ? -1 : segment + source;
}
template <class T> inline T shuffle_value(Shift shift, unsigned mask, T value, int delta, int width, Site site) {
    const int source = shuffle_source(shift, lane_index(), delta, width);
    return from_word<T>(shuffle(mask, to_word(value), source, site));
}

}  // namespace emulator

template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMULATOR_SITE) {
    return emulator::shuffle_value(emulator::Shift::Index, mask, value, lane, width, site);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
    return emulator::shuffle_value(emulator::Shift::Up, mask, value, int(delta), width, site);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
    return emulator::shuffle_value(emulator::Shift::Down, mask, value, int(delta), width, site);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_SITE) {
    return emulator::shuffle_value(emulator::Shift::Xor, mask, value, lanes, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::vote(mask, predicate != 0, emulator::Vote::Ballot, site);
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::vote(mask, predicate != 0, emulator::Vote::Ballot, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::vote(mask, predicate == 0, emulator::Vote::Ballot, site) == 0;
}
template <class T> inline unsigned __match_any_sync(unsigned mask, T value, EMULATOR_SITE) {
    return emulator::match_any(mask, emulator::to_word(value), site);
}
template <class T> inline unsigned __match_all_sync(unsigned mask, T value, int* all, EMULATOR_SITE) {
    *all = emulator::match_any(mask, emulator::to_word(value), site) == mask;
    return *all ? mask : 0;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
    return emulator::vote(mask, value, emulator::Vote::Add, site);
}
inline int __reduce_add_sync(unsigned mask, int value, EMULATOR_SITE) {
    return int(emulator::vote(mask, unsigned(value), emulator::Vote::Add, site));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
    return emulator::vote(mask, value, emulator::Vote::MinUnsigned, site);
}
inline int __reduce_min_sync(unsigned mask, int value, EMULATOR_SITE) {
    return int(emulator::vote(mask, unsigned(value), emulator::Vote::MinSigned, site));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
    return emulator::vote(mask, value, emulator::Vote::MaxUnsigned, site);
}
inline int __reduce_max_sync(unsigned mask, int value, EMULATOR_SITE) {
    return int(emulator::vote(mask, unsigned(value), emulator::Vote::MaxSigned, site));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
    return emulator::vote(mask, value, emulator::Vote::And, site);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
    return emulator::vote(mask, value, emulator::Vote::Or, site);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
    return emulator::vote(mask, value, emulator::Vote::Xor, site);
}
