#include "checker_clocks.h"

#include <algorithm>

namespace emulator::checker {
namespace {

void join(Epoch* to, const Epoch* from, size_t count) {
    for (size_t i = 0; i < count; i++) to[i] = std::max(to[i], from[i]);
}

}  // namespace

void join(Clock& to, const Clock& from) {
    if (to.size() < from.size()) to.resize(from.size());
    join(to.data(), from.data(), from.size());
}

ForeignPointer join(const ForeignPointer& a, const ForeignPointer& b) {
    if (!b || a == b) return a;
    if (!a) return b;
    std::shared_ptr<Foreign> both;
    for (const auto& block : *b) {
        const auto known = a->find(block.first);
        if (known != a->end() && known->second == block.second) continue;
        if (!both) both = std::make_shared<Foreign>(*a);
        auto& clock = (*both)[block.first];
        if (!clock) {
            clock = block.second;
            continue;
        }
        auto joined = std::make_shared<Clock>(*clock);
        join(*joined, *block.second);
        clock = joined;
    }
    return both ? both : a;
}

void Knowledge::clear() {
    clock.clear();
    foreign.reset();
}

void Clocks::reset(int threads) {
    threads_ = threads;
    agents_ = threads + kMbarriers;
    rows_.assign(size_t(threads) * size_t(agents_), 0);
    floor_.assign(size_t(agents_), 0);
    foreign_.assign(size_t(threads), nullptr);
    for (int t = 0; t < threads; t++) row(t)[t] = 1;
}

bool Clocks::knows_of_block(int thread, uint32_t block, int agent, Epoch epoch) const {
    const ForeignPointer& known = foreign_[size_t(thread)];
    if (!known) return false;
    const auto found = known->find(block);
    return found != known->end() && epoch <= found->second->at(size_t(agent));
}

void Clocks::learn(int thread, int agent, Epoch epoch) {
    row(thread)[agent] = std::max(row(thread)[agent], epoch);
}

void Clocks::release(int thread, Knowledge& to) {
    if (to.clock.size() < size_t(agents_)) to.clock.resize(size_t(agents_));
    join(to.clock.data(), row(thread), size_t(agents_));
    to.foreign = checker::join(to.foreign, foreign_[size_t(thread)]);
    tick(thread);
}

void Clocks::acquire(int thread, const Knowledge& from) {
    join(row(thread), from.clock.data(), from.clock.size());
    foreign_[size_t(thread)] = checker::join(foreign_[size_t(thread)], from.foreign);
}

Knowledge Clocks::everything_known(int thread) const {
    Knowledge known{floor_, foreign_[size_t(thread)]};
    join(known.clock.data(), row(thread), size_t(agents_));
    return known;
}

void Clocks::barrier_of_all() {
    ForeignPointer foreign;
    for (int t = 0; t < threads_; t++) {
        floor_[size_t(t)] = now(t);
        join(floor_.data() + threads_, row(t) + threads_, kMbarriers);
        foreign = checker::join(foreign, foreign_[size_t(t)]);
        tick(t);
    }
    foreign_.assign(size_t(threads_), foreign);
}

void Clocks::barrier_of_warp(int first_thread, uint32_t mask) {
    Knowledge shared;
    for (uint32_t left = mask; left; left &= left - 1) release(first_thread + __builtin_ctz(left), shared);
    for (uint32_t left = mask; left; left &= left - 1) acquire(first_thread + __builtin_ctz(left), shared);
}

}  // namespace emulator::checker
