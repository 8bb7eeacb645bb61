// The runtime's own state: fibers, warps, barriers and the worker that runs blocks with them.
#pragma once
#include <cstdarg>
#include <string>
#include <vector>

#include "api.h"
#include "context.h"
#include "memory.h"
#include "random.h"
#include "runtime.h"
#include "sanitizers.h"

#pragma GCC visibility push(hidden)
namespace emulator {

namespace checker {
struct State;
}

constexpr size_t kStackBytes = (EMULATOR_ASAN ? 512 : 128) << 10;
constexpr int kMaxThreads = 1024, kMaxWarps = kMaxThreads / 32, kBarriers = 16;

enum class State : uint8_t { Runnable, AtCollective, AtBarrier, Polling, Done };

// Runs once for a warp collective; arguments are by lane, null outside the mask.
using Collective = void (*)(void* const* arguments, uint32_t mask);

struct PendingCopy {
    unsigned char* to;
    const unsigned char* from;
    int bytes, source_bytes;
};

// The cp.async operations of a thread that have not been executed, oldest first, and where its groups end.
struct CopyGroups {
    std::vector<PendingCopy> copies;
    std::vector<size_t> ends;
    void clear() {
        copies.clear();
        ends.clear();
    }
};

// Accumulators of wgmma that the kernel must not touch before it has waited.
struct HiddenRegisters {
    const float* begin;
    const float* end;
};

struct Fiber {
    Context context;
    char* stack = nullptr;
    void* asan_stack = nullptr;
    Index3 thread{};
    int index = 0, warp = 0, lane = 0;
    State state = State::Done;
    // The primitive it is in or waits at.
    const char* primitive = nullptr;
    Site site{};
    uint32_t mask = 0;
    Collective collective = nullptr;
    void* argument = nullptr;
    int barrier = -1;
    bool (*ready)(void*) = nullptr;
    CopyGroups copies;
    int bulk_open = 0, bulk_closed = 0, bulk_waited = 0;  // stores in the open group; groups
    Site bulk_site{};
    std::vector<HiddenRegisters> hidden;
};

struct Warp {
    uint32_t runnable = 0, live = 0;
    uint32_t waiting = 0;  // at a collective
    Fiber* fibers[32] = {};
};

// One pass over the lanes of a warp.
struct Sweep {
    Warp* warp;
    uint32_t left;
    unsigned rotation;
    bool downwards;
};

struct Barrier {
    int arrived = 0, needed = 0;
    Site site{};
    bool whole_block = false;
    int predicates = 0, counted = 0;  // of __syncthreads_count: so far, and when it last completed
    std::vector<Fiber*> sleepers;
};

struct AsyncOperation {
    void (*run)(const void* payload);
    alignas(16) unsigned char payload[112];
};

struct Mbarrier {
    uint64_t* word;  // in shared memory, where it holds a mark with the barrier's number
    uint32_t count, pending;
    int64_t bytes;              // expected and not yet complete
    uint32_t phases;            // over
    uint32_t waited;            // phases that some thread has waited for
    uint32_t last_copy_phase;   // the latest with a copy in it, from 1
};

// What went wrong, with code addresses still to be turned into source lines.
struct Failure {
    std::string text;
    struct Place {
        std::string before;
        uintptr_t address;
    };
    std::vector<Place> places;
};

// One wgmma of one warp, and the accumulators it adds to.
struct WgmmaOperation {
    WgmmaCall call;
    uint32_t a_registers[32][4];
    int accumulators;
    Site site;
};
struct Accumulators {
    float* registers[32];
    int columns;
    int under_way;      // operations that have not been waited for
    bool hidden;
    uint32_t fences;    // when they were last shown
    std::vector<float> values;  // [16, columns]
    std::vector<float> shown;   // [32, columns / 2]: as the last wait left them
};
struct WgmmaWarp {
    std::vector<WgmmaOperation> operations;  // issued and not waited for
    size_t executed = 0;
    std::vector<size_t> groups;              // where each closed group ends
    std::vector<Accumulators> accumulators;
    uint32_t fences = 0;
    bool fenced_since_commit = false;
};

enum class Policy { Ascending, Descending, RandomWarp, RandomPriorities };

struct Launch {
    const LkLaunch* request;
    const Kernel* kernel;
    int threads, warps;
    Index3 grid, block;
    std::vector<Buffer> buffers;  // as they were when the launch began
};

// An operating system's thread that runs blocks, one at a time.
struct Worker {
    const Launch* launch = nullptr;
    std::vector<Fiber> fibers;
    Warp warps[kMaxWarps];
    Barrier barriers[kBarriers];
    std::vector<AsyncOperation> async;
    std::vector<Mbarrier> mbarriers;
    WgmmaWarp wgmma[kMaxWarps];
    Context scheduler;
    void* asan_stack = nullptr;
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
    SharedArena shared;
    Index3 block{};
    uint64_t block_number = 0;
    Fiber* current = nullptr;
    uint32_t runnable_warps = 0;
    Sweep sweep{};
    int live = 0;
    Random random;
    Policy policy = Policy::Ascending;
    int priorities[kMaxWarps] = {};
    bool failed = false;
    Failure failure;
    LkStats stats{};
    const Buffer* last_buffer = nullptr;
    checker::State* checker = nullptr;  // while it runs kernels that are checked
    alignas(64) unsigned char params[8192];
};

extern __thread Worker* worker __attribute__((tls_model("initial-exec")));

// Scheduler.
void prepare_fibers(Worker& w, int threads);
void free_fibers(Worker& w);
void run_block(Worker& w, Index3 block, uint64_t number);
void yield();
void sleep_current(State state);
void wake(Fiber& fiber);
void wait_until(bool (*ready)(void*), void* argument, const char* primitive, Site site);
bool toss(unsigned one_in);  // false under the ascending schedule, true under the descending one

// Collectives.
void collective(uint32_t mask, Collective run, void* argument, const char* primitive, Site site);
void lane_exits(Fiber& fiber);
void enter(const char* primitive, Site site);
bool site_skipped(Site site, const char* kind);  // also remembers it when the launch traces
void reset_barriers(Worker& w);

// Asynchronous operations.
void issue_async(void (*run)(const void*), const void* payload, size_t bytes);
void run_one_async(Worker& w);
void finish_copies(Fiber& fiber, size_t count);

// What a block or a thread may not leave behind.
void reset_mbarriers(Worker& w);
void check_mbarriers_at_end(Worker& w);
void check_bulk_at_exit(Fiber& fiber);
void reset_wgmma(Worker& w);
void check_wgmma_at_exit(Worker& w, Fiber& fiber);
Mbarrier& find_mbarrier(uint64_t* word, bool for_copy, Site site);
void add_bytes(int mbarrier, int64_t bytes);

// Failures.
std::string describe_thread(const Worker& w, const Fiber* fiber);
std::string describe_site(Site site);
void record_failure(const std::string& text, Site site);
[[noreturn]] void abandon_thread();
[[noreturn]] void fail_at(uintptr_t address, const std::string& text);
std::string source_line(uintptr_t address);
void catch_faults();
struct AlternateStack {
    AlternateStack();
    ~AlternateStack();
    void* memory;
    void* previous;
};

void check_shared(const void* address, size_t bytes, size_t alignment, const char* what, Site site);
const Buffer* buffer_of(const void* address);
void check_global(const void* address, size_t bytes, size_t alignment, const char* what, Site site);

}  // namespace emulator
#pragma GCC visibility pop
