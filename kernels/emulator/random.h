// SplitMix64, which chooses schedules.
#pragma once
#include <cstdint>

namespace emulator {

struct Random {
    uint64_t state = 1;
    uint64_t next() {
        state += 0x9e3779b97f4a7c15ull;
        uint64_t z = state;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
    }
    unsigned below(unsigned n) { return unsigned((next() >> 32) * n >> 32); }
};

}  // namespace emulator
