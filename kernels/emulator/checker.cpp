#include "checker.h"

#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "checker_shadow.h"

#pragma GCC visibility push(hidden)
namespace emulator::checker {

// Groups of asynchronous operations: how many are closed, and when each was waited for.
struct ThreadGroups {
    Epoch closed = 0;
    Clock waited_at;  // the thread's clock when group 1, 2... had been waited for

    void wait(size_t newest_left, Epoch now) {
        while (waited_at.size() + newest_left < closed) waited_at.push_back(now);
    }
};

struct WarpGroups {
    Epoch closed = 0;
    std::vector<std::array<Epoch, 32>> waited_at;
};

struct Phases {
    Knowledge arriving;
    Knowledge over[2];
    Epoch done = 0;
};

struct State {
    uint32_t block = 0;
    Clocks clocks;
    Shadow shared{SharedArena::kCapacity};
    std::vector<std::unique_ptr<Shadow>> global;  // by buffer
    std::vector<Knowledge> barriers{kBarriers};
    std::vector<ThreadGroups> copies, bulk_stores;
    std::vector<WarpGroups> wgmma;
    std::vector<Phases> phases;
    std::vector<Clock> proxy_fences;      // by thread: its clock at each
    std::vector<Knowledge> fenced;        // by thread: what it knew at its last __threadfence
    std::vector<Knowledge> to_acquire;    // by thread: what its atomics have read since
    std::unordered_map<const void*, Knowledge> atomics;
    std::vector<Site> sites;
    const char *module = nullptr, *module_end = nullptr;  // the library that holds kernels and runtime
};

namespace {

constexpr Where kSite = 0x80000000u;

State& state(Worker& w) {
    return *w.checker;
}

int current_thread(const Worker& w) {
    return w.current->index;
}

Where where_of(State& s, Site site) {
    for (size_t i = s.sites.size(); i-- > 0;)
        if (s.sites[i].line == site.line && s.sites[i].file == site.file) return kSite | uint32_t(i);
    s.sites.push_back(site);
    return kSite | uint32_t(s.sites.size() - 1);
}

Where where_of(State& s, uintptr_t code) {
    return Where(code - uintptr_t(s.module));
}

// A place to be told: the text before it, then its file and line, which for a code address are looked up later.
Failure::Place place(const State& s, std::string before, Where where) {
    if (where & kSite) return {before + describe_site(s.sites[where & ~kSite]), 0};
    return {before, uintptr_t(s.module) + where};
}

std::string name_of(const Worker& w, const Access& a) {
    const State& s = *w.checker;
    char text[96];
    unsigned n = a.agent;
    const char* who = "thread";
    if (a.kind == Kind::BulkLoad) return "a bulk copy";
    if (a.kind == Kind::Wgmma) {
        n *= 32;
        who = "the warp of thread";
    }
    const Index3 dim = w.launch->block;
    snprintf(text, sizeof text, "%s (%u,%u,%u)", who, n % dim.x, n / dim.x % dim.y, n / (dim.x * dim.y));
    if (a.block == s.block) return text;
    const unsigned number = a.block - 1;
    const Index3 grid = w.launch->grid;
    char block[64];
    snprintf(block, sizeof block, " of block (%u,%u,%u)", number % grid.x, number / grid.x % grid.y,
             number / (grid.x * grid.y));
    return text + std::string(block);
}

struct Memory {
    Shadow* shadow;
    size_t offset;
    bool shared;
    const Buffer* buffer;
};

// What a kernel may touch besides its own stack, shared memory and buffers: parameters, and constants of the library.
bool may_be_host(const Worker& w, const char* address) {
    const State& s = *w.checker;
    const auto* params = reinterpret_cast<const char*>(w.params);
    return (address >= params && address < params + sizeof w.params) || (address >= s.module && address < s.module_end);
}

// Where an address lies, checked to be inside; a null shadow for memory that is not watched.
Memory locate(Worker& w, const void* address, size_t bytes, const std::string& what) {
    State& s = state(w);
    const char* a = static_cast<const char*>(address);
    char text[160];
    if (w.shared.contains_map(a)) {
        const ptrdiff_t offset = a - reinterpret_cast<const char*>(w.shared.begin());
        const bool inside = offset >= 0 && size_t(offset) + bytes <= w.shared.bytes();
        if (inside) return {&s.shared, size_t(offset), true, nullptr};
        snprintf(text, sizeof text, " of %zu bytes out of bounds: shared memory at offset %td of %zu bytes", bytes,
                 offset, w.shared.bytes());
        record_failure(what + text, Site{});
        return {nullptr, 0, true, nullptr};
    }
    const Buffer* buffer = buffer_of(a);
    if (!buffer) {
        if (!may_be_host(w, a)) record_failure(what + " of memory that is in no buffer", Site{});
        return {nullptr, 0, false, nullptr};
    }
    const ptrdiff_t offset = a - buffer->data;
    if (offset < 0 || size_t(offset) + bytes > buffer->bytes) {
        snprintf(text, sizeof text, " of %zu bytes out of bounds: offset %td of a buffer of %zu bytes", bytes, offset,
                 buffer->bytes);
        record_failure(what + text, Site{});
        return {nullptr, 0, false, nullptr};
    }
    auto& shadow = s.global[size_t(buffer - w.launch->buffers.data())];
    if (!shadow) shadow = std::make_unique<Shadow>(buffer->bytes);
    return {shadow.get(), size_t(offset), false, buffer};
}

// One access, compared with what the records remember.
class Check {
  public:
    Check(Worker& w, Access access, bool write, size_t bytes)
        : w_(w), s_(state(w)), access_(access), write_(write), bytes_(bytes), thread_(current_thread(w)) {}

    // False once a failure has been recorded.
    bool run(const Memory& memory) {
        memory_ = memory;
        return memory.shadow->each(memory.offset, bytes_, write_, [&](Record& record) { return visit(record); });
    }

  private:
    static bool at_once(Kind kind) { return kind == Kind::Plain || kind == Kind::Atomic || kind == Kind::Probe; }

    bool visit(Record& r) {
        if (!write_ && access_.kind == Kind::Plain && r.read.epoch == access_.epoch && r.read.agent == access_.agent &&
            r.read.block == access_.block && r.read.kind == Kind::Plain)
            return true;
        if (!write_ && memory_.shared && !r.written) return report_uninitialised();
        const bool both_atomic = access_.kind == Kind::Atomic && r.write.kind == Kind::Atomic;
        if (!both_atomic && !ordered(r.write)) return report(r.write, "write");
        if (memory_.shared && through_async_proxy() && !proxy_fenced(r.write)) return report_proxy(r.write);
        return write_ ? visit_write(r) : visit_read(r);
    }

    bool visit_write(Record& r) {
        if (!ordered(r.read)) return report(r.read, "read");
        if (const Readers* readers = memory_.shadow->readers(r, 0))
            for (const Access& read : *readers)
                if (!ordered(read)) return report(read, "read");
        if (const AsyncReads* reads = memory_.shadow->async_reads(r, false))
            for (const Access& read : *reads)
                if (!ordered(read)) return report(read, "read");
        r = Record{};
        r.write = access_;
        r.written = true;
        return true;
    }

    bool visit_read(Record& r) {
        if (!at_once(access_.kind)) {
            AsyncReads& reads = *memory_.shadow->async_reads(r, true);
            auto slot = std::find_if(reads.begin(), reads.end(), [&](const Access& a) {
                return a.kind == Kind::None || (a.agent == access_.agent && a.kind == access_.kind);
            });
            *(slot == reads.end() ? reads.begin() : slot) = access_;
            return true;
        }
        Readers* readers = memory_.shadow->readers(r, 0);
        const bool alone = r.read.kind == Kind::None || r.read.block != s_.block || ordered(r.read);
        if (!readers && !alone) {
            readers = memory_.shadow->readers(r, s_.clocks.threads());
            (*readers)[r.read.agent] = r.read;
        }
        if (readers) (*readers)[access_.agent] = access_;
        r.read = access_;
        return true;
    }

    bool ordered(const Access& a) const {
        if (a.kind == Kind::None) return true;
        const Clocks& clocks = s_.clocks;
        const bool plain = at_once(a.kind);
        if (a.block != s_.block) return clocks.knows_of_block(thread_, a.block, a.agent, plain ? a.epoch : 1);
        if (plain) return a.agent == thread_ || clocks.knows(thread_, a.agent, a.epoch);
        if (a.kind == Kind::BulkLoad) return clocks.knows(thread_, clocks.mbarrier_agent(a.agent), a.epoch);
        if (a.kind == Kind::Wgmma) {
            const WarpGroups& groups = s_.wgmma[a.agent];
            if (a.epoch > groups.waited_at.size()) return false;
            for (int lane = 0; lane < 32; lane++) {
                const int thread = a.agent * 32 + lane;
                if (thread == thread_ || clocks.knows(thread_, thread, groups.waited_at[a.epoch - 1][size_t(lane)]))
                    return true;
            }
            return false;
        }
        const ThreadGroups& groups = groups_of(a);
        if (a.epoch > groups.waited_at.size()) return false;
        return a.agent == thread_ || clocks.knows(thread_, a.agent, groups.waited_at[a.epoch - 1]);
    }

    const ThreadGroups& groups_of(const Access& a) const {
        return (a.kind == Kind::CopyAsync ? s_.copies : s_.bulk_stores)[a.agent];
    }

    // Asynchronous operations other than cp.async see ordinary writes through a proxy of their own.
    bool through_async_proxy() const {
        return access_.kind == Kind::Probe || (!at_once(access_.kind) && access_.kind != Kind::CopyAsync);
    }

    bool proxy_fenced(const Access& a) const {
        if (a.kind == Kind::None || a.kind == Kind::BulkLoad) return true;
        const Epoch written = a.kind == Kind::CopyAsync ? groups_of(a).waited_at[a.epoch - 1] : a.epoch;
        const Clock& fences = s_.proxy_fences[a.agent];
        const auto fence = std::lower_bound(fences.begin(), fences.end(), written);
        return fence != fences.end() && (a.agent == thread_ || s_.clocks.knows(thread_, a.agent, *fence));
    }

    std::string described(const char* verb) const {
        char text[160];
        if (memory_.shared)
            snprintf(text, sizeof text, "%s of %zu bytes of shared memory at offset %zu", verb, bytes_, memory_.offset);
        else
            snprintf(text, sizeof text, "%s of %zu bytes at offset %zu of a buffer of %zu bytes", verb, bytes_,
                     memory_.offset, memory_.buffer->bytes);
        return text;
    }
    const char* verb() const { return access_.kind == Kind::Atomic ? "atomic" : write_ ? "write" : "read"; }

    bool fail_here(const std::string& text) {
        record_failure(text, Site{});
        w_.failure.places.push_back(place(s_, " at ", access_.where));
        return false;
    }

    bool report_uninitialised() { return fail_here("uninitialised: " + described(verb())); }

    bool report(const Access& other, const char* other_verb) {
        const bool pending = other.block == s_.block && not_waited_for(other);
        fail_here("race: " + described(verb()));
        std::string text = std::string(", not ordered after a ") + other_verb + " by " + name_of(w_, other);
        if (pending) text += kind_of_wait(other);
        w_.failure.places.push_back(place(s_, text + " at ", other.where));
        return false;
    }

    bool report_proxy(const Access& other) {
        fail_here("missing fence.proxy.async: asynchronous " + described(verb()));
        w_.failure.places.push_back(place(s_, ", written by " + name_of(w_, other) + " at ", other.where));
        return false;
    }

    bool not_waited_for(const Access& a) const {
        switch (a.kind) {
        case Kind::CopyAsync:
        case Kind::BulkStore: return a.epoch > groups_of(a).waited_at.size();
        case Kind::Wgmma: return a.epoch > s_.wgmma[a.agent].waited_at.size();
        case Kind::BulkLoad: return true;
        default: return false;
        }
    }

    static std::string kind_of_wait(const Access& a) {
        switch (a.kind) {
        case Kind::CopyAsync: return "'s cp.async, which has not been waited for,";
        case Kind::BulkStore: return "'s bulk store, which has not been waited for,";
        case Kind::Wgmma: return "'s wgmma, which has not been waited for,";
        default: return ", whose mbarrier has not been waited for,";
        }
    }

    Worker& w_;
    State& s_;
    const Access access_;
    const bool write_;
    const size_t bytes_;
    const int thread_;
    Memory memory_{};
};

// The access's time, as its kind counts it.
Access stamped(Worker& w, Kind kind, Where where) {
    State& s = state(w);
    const int thread = current_thread(w);
    Access a;
    a.where = where;
    a.block = s.block;
    a.kind = kind;
    a.agent = uint16_t(thread);
    switch (kind) {
    case Kind::CopyAsync: a.epoch = s.copies[size_t(thread)].closed + 1; break;
    case Kind::BulkStore: a.epoch = s.bulk_stores[size_t(thread)].closed + 1; break;
    case Kind::Wgmma:
        a.agent = uint16_t(thread / 32);
        a.epoch = s.wgmma[a.agent].closed + 1;
        break;
    default: a.epoch = s.clocks.now(thread);
    }
    return a;
}

void check(Worker& w, const void* address, size_t bytes, bool write, const Access& access) {
    const Memory memory = locate(w, address, bytes, write ? "write" : "read");
    bool fine = !w.failed;
    if (!fine) w.failure.places.push_back(place(state(w), " at ", access.where));
    else if (memory.shadow) fine = Check(w, access, write, bytes).run(memory);
    if (!fine) abandon_thread();
}

void acquire_pending(State& s, int thread) {
    s.clocks.acquire(thread, s.to_acquire[size_t(thread)]);
    s.to_acquire[size_t(thread)].clear();
}

void forget_global_readers(State& s) {
    for (auto& shadow : s.global)
        if (shadow) shadow->forget_readers();
}

// An atomic hands on what its thread had fenced, and reads what others handed on, which a later fence makes known.
void pass_on(State& s, const void* address, size_t thread) {
    Knowledge& here = s.atomics[address];
    s.to_acquire[thread].foreign = join(s.to_acquire[thread].foreign, here.foreign);
    const Knowledge& fenced = s.fenced[thread];
    if (fenced.clock.empty()) return;
    auto own = std::make_shared<Foreign>();
    (*own)[s.block] = std::make_shared<Clock>(fenced.clock);
    here.foreign = join(join(here.foreign, fenced.foreign), own);
}

// The module in whose segments this function lies.
int find_module(dl_phdr_info* info, size_t, void* found) {
    State& s = *static_cast<State*>(found);
    const auto* own = reinterpret_cast<const char*>(&find_module);
    const char* base = reinterpret_cast<const char*>(info->dlpi_addr);
    const char* end = base;
    bool here = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD) continue;
        const char* from = base + segment.p_vaddr;
        here |= own >= from && own < from + segment.p_memsz;
        end = std::max(end, from + segment.p_memsz);
    }
    if (!here) return 0;
    s.module = base;
    s.module_end = end;
    return 1;
}

}  // namespace

void begin_launch(Worker& w) {
    if (!w.launch->kernel->checked) return;
    w.checker = new State;
    State& s = *w.checker;
    s.global.resize(w.launch->buffers.size());
    dl_iterate_phdr(find_module, &s);
}

void end_launch(Worker& w) {
    delete w.checker;
    w.checker = nullptr;
}

void begin_block(Worker& w) {
    if (!w.checker) return;
    State& s = *w.checker;
    const size_t threads = size_t(w.launch->threads), warps = size_t(w.launch->warps);
    s.block = uint32_t(w.block_number + 1);
    s.clocks.reset(int(threads));
    s.shared.forget();
    forget_global_readers(s);
    for (Knowledge& barrier : s.barriers) barrier.clear();
    s.copies.assign(threads, {});
    s.bulk_stores.assign(threads, {});
    s.wgmma.assign(warps, {});
    s.phases.assign(Clocks::kMbarriers, {});
    s.proxy_fences.assign(threads, {});
    s.fenced.assign(threads, {});
    s.to_acquire.assign(threads, {});
}

void access(Worker& w, const void* address, size_t bytes, bool write, Kind kind, Site site) {
    if (!w.checker || w.failed) return;
    State& s = *w.checker;
    check(w, address, bytes, write, stamped(w, kind, where_of(s, site)));
    if (kind == Kind::Atomic) pass_on(s, address, size_t(current_thread(w)));
}

void access_at(Worker& w, const void* address, size_t bytes, bool write, bool aligned, uintptr_t code) {
    State& s = *w.checker;
    const Access access = stamped(w, Kind::Plain, where_of(s, code));
    if (aligned && uintptr_t(address) % bytes && (w.shared.contains_map(address) || buffer_of(address))) {
        char text[96];
        snprintf(text, sizeof text, "misaligned %s of %zu bytes", write ? "write" : "read", bytes);
        record_failure(text, Site{});
        w.failure.places.push_back(place(s, " at ", access.where));
        abandon_thread();
    }
    check(w, address, bytes, write, access);
}

void sync_warp(Worker& w, int warp, uint32_t mask) {
    if (w.checker) w.checker->clocks.barrier_of_warp(warp * 32, mask);
}

void barrier_arrive(Worker& w, int id) {
    if (!w.checker || w.barriers[id].whole_block) return;
    w.checker->clocks.release(current_thread(w), w.checker->barriers[size_t(id)]);
}

void barrier_complete(Worker& w, int id) {
    if (!w.checker) return;
    State& s = *w.checker;
    if (w.barriers[id].whole_block) {
        s.clocks.barrier_of_all();
        s.shared.forget_readers();
        forget_global_readers(s);
        return;
    }
    Knowledge& told = s.barriers[size_t(id)];
    for (const Fiber* fiber : w.barriers[id].sleepers) s.clocks.acquire(fiber->index, told);
    told.clear();
}

void thread_fence(Worker& w) {
    if (!w.checker) return;
    State& s = *w.checker;
    const int thread = current_thread(w);
    acquire_pending(s, thread);
    s.fenced[size_t(thread)] = s.clocks.everything_known(thread);
    s.clocks.tick(thread);
}

void proxy_fence(Worker& w) {
    if (!w.checker) return;
    const int thread = current_thread(w);
    Clocks& clocks = w.checker->clocks;
    w.checker->proxy_fences[size_t(thread)].push_back(clocks.now(thread));
    clocks.tick(thread);
}

void commit_copies(Worker& w) {
    if (w.checker) w.checker->copies[size_t(current_thread(w))].closed++;
}

void wait_copies(Worker& w, size_t newest_left) {
    if (!w.checker) return;
    const int thread = current_thread(w);
    w.checker->copies[size_t(thread)].wait(newest_left, w.checker->clocks.now(thread));
}

void commit_bulk_stores(Worker& w) {
    if (w.checker) w.checker->bulk_stores[size_t(current_thread(w))].closed++;
}

void wait_bulk_stores(Worker& w, size_t newest_left) {
    if (!w.checker) return;
    const int thread = current_thread(w);
    w.checker->bulk_stores[size_t(thread)].wait(newest_left, w.checker->clocks.now(thread));
}

void commit_wgmma(Worker& w, int warp) {
    if (w.checker) w.checker->wgmma[size_t(warp)].closed++;
}

void wait_wgmma(Worker& w, int warp, size_t newest_left) {
    if (!w.checker) return;
    WarpGroups& groups = w.checker->wgmma[size_t(warp)];
    std::array<Epoch, 32> now{};
    for (int lane = 0; lane < 32; lane++) now[size_t(lane)] = w.checker->clocks.now(warp * 32 + lane);
    while (groups.waited_at.size() + newest_left < groups.closed) groups.waited_at.push_back(now);
}

void mbarrier_arrive(Worker& w, int index) {
    if (w.checker) w.checker->clocks.release(current_thread(w), w.checker->phases[size_t(index)].arriving);
}

void mbarrier_phase_over(Worker& w, int index) {
    if (!w.checker) return;
    Phases& phases = w.checker->phases[size_t(index)];
    std::swap(phases.over[phases.done++ & 1], phases.arriving);
    phases.arriving.clear();
}

void mbarrier_passed(Worker& w, int index, unsigned parity) {
    if (!w.checker) return;
    State& s = *w.checker;
    Phases& phases = s.phases[size_t(index)];
    const int thread = current_thread(w);
    s.clocks.acquire(thread, phases.over[parity]);
    s.clocks.learn(thread, s.clocks.mbarrier_agent(index), phases.done);
}

void bulk_load(Worker& w, const void* to, size_t bytes, int mbarrier, Site site) {
    if (!w.checker || w.failed) return;
    State& s = *w.checker;
    Access access = stamped(w, Kind::BulkLoad, where_of(s, site));
    access.agent = uint16_t(mbarrier);
    access.epoch = s.phases[size_t(mbarrier)].done + 1;
    check(w, to, bytes, true, access);
}

}  // namespace emulator::checker
#pragma GCC visibility pop
