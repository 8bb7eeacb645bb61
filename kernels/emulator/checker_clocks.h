// Vector clocks: what each thread of the running block knows to have happened.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#pragma GCC visibility push(hidden)
namespace emulator::checker {

using Epoch = uint32_t;
using Clock = std::vector<Epoch>;

// What is known of blocks that ran before, by their number: through atomics and fences alone.
using Foreign = std::map<uint32_t, std::shared_ptr<const Clock>>;
using ForeignPointer = std::shared_ptr<const Foreign>;

void join(Clock& to, const Clock& from);
ForeignPointer join(const ForeignPointer& a, const ForeignPointer& b);

// What a release hands to whoever acquires it.
struct Knowledge {
    Clock clock;
    ForeignPointer foreign;
    void clear();
};

// Agents are the block's threads, then its mbarriers, which stand for the copies that complete on them.
class Clocks {
  public:
    static constexpr int kMbarriers = 64;

    void reset(int threads);
    int threads() const { return threads_; }
    int mbarrier_agent(int index) const { return threads_ + index; }
    Epoch now(int thread) const { return row(thread)[thread]; }
    bool knows(int thread, int agent, Epoch epoch) const {
        return epoch <= floor_[agent] || epoch <= row(thread)[agent];
    }
    bool knows_of_block(int thread, uint32_t block, int agent, Epoch epoch) const;
    void learn(int thread, int agent, Epoch epoch);

    // Later accesses of the thread are told from those before.
    void tick(int thread) { row(thread)[thread]++; }
    void release(int thread, Knowledge& to);
    void acquire(int thread, const Knowledge& from);
    Knowledge everything_known(int thread) const;

    void barrier_of_all();
    void barrier_of_warp(int first_thread, uint32_t mask);

  private:
    Epoch* row(int thread) { return rows_.data() + size_t(thread) * size_t(agents_); }
    const Epoch* row(int thread) const { return rows_.data() + size_t(thread) * size_t(agents_); }

    int threads_ = 0, agents_ = 0;
    Clock rows_;
    Clock floor_;  // what a barrier of the whole block has told every thread
    std::vector<ForeignPointer> foreign_;
};

}  // namespace emulator::checker
#pragma GCC visibility pop
