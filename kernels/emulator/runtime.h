// What compiled kernels call: the runtime's side of the CUDA device language.
#pragma once
#include <cstddef>
#include <cstdint>

// Two copies of the runtime may live in one process; each must call itself.
#pragma GCC visibility push(hidden)
namespace emulator {

// Where in a kernel's source a primitive was called.
struct Site {
    const char* file;
    int line;
};
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
}

struct Index3 {
    unsigned x, y, z;
};

// A kernel, known to the runtime from its static constructor on.
struct Kernel {
    Kernel(const char* name, const char* file, int line, uint32_t params_bytes, uint32_t max_threads, bool checked,
           void (*run)(const void*));
    const char* name;
    const char* file;
    int line;
    uint32_t params_bytes, max_threads;
    bool checked;
    void (*run)(const void* params);
    Kernel* next;
};

// Constant within a thread of a kernel, so that the compiler may ask once.
Index3 thread_index() __attribute__((const));
Index3 block_index() __attribute__((const));
Index3 block_dim() __attribute__((const));
Index3 grid_dim() __attribute__((const));
int lane_index() __attribute__((const));
unsigned char* shared_memory() __attribute__((const));
uint64_t clock_ticks();

[[noreturn]] void fail(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Barriers and fences.
void sync_threads(Site site);
int sync_threads_count(int predicate, Site site);
void sync_warp(uint32_t mask, Site site);
void barrier_sync(int id, int threads, Site site);
void barrier_arrive(int id, int threads, Site site);
void thread_fence(Site site);
void pause_thread();

// Warp collectives. Values travel as 64 bits; a source outside 0..31 means the lane's own value.
enum class Vote { Ballot, Add, MinUnsigned, MaxUnsigned, MinSigned, MaxSigned, And, Or, Xor };
uint64_t shuffle(uint32_t mask, uint64_t value, int source, Site site);
uint32_t vote(uint32_t mask, uint32_t value, Vote kind, Site site);
uint32_t match_any(uint32_t mask, uint64_t value, Site site);
uint32_t active_mask();

// Atomics on 4 or 8 bytes: the value now, then an exchange that fails, with the newer value, when it has changed.
uint64_t atomic_begin(void* address, int bytes, Site site);
bool atomic_exchange_if(void* address, int bytes, uint64_t* seen, uint64_t value);

// Tensor cores. Fragments are laid out as the PTX manual says.
enum class Element { Bf16, F16, Tf32 };
void ldmatrix(uint32_t* out, const void* row, int matrices, bool transposed, Site site);
void stmatrix(void* row, const uint32_t* in, int matrices, bool transposed, Site site);
uint32_t movmatrix(uint32_t fragment, Site site);
void mma_k16(float* d, const uint32_t* a, const uint32_t* b, Element element, Site site);
void mma_k8_tf32(float* d, const uint32_t* a, const uint32_t* b, Site site);
void mma_sparse_k32(float* d, const uint32_t* a, const uint32_t* b, uint32_t metadata, int selector, Element element,
                    Site site);

// Asynchronous copies of a thread.
void cp_async(void* shared, const void* global, int bytes, int source_bytes, Site site);
void cp_async_commit(Site site);
void cp_async_wait(int newest_left, Site site);

// Barriers in shared memory that count arrivals and bytes.
void mbarrier_init(uint64_t* barrier, int arrivals, Site site);
void mbarrier_invalidate(uint64_t* barrier, Site site);
void mbarrier_arrive(uint64_t* barrier, int expected_bytes, Site site);
void mbarrier_wait(uint64_t* barrier, unsigned parity, Site site);
void proxy_fence(Site site);

// Bulk and tensor copies. Loads complete on an mbarrier, stores in groups of their thread.
void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, Site site);
void bulk_store(void* global, const void* shared, uint32_t bytes, Site site);
void tensor_load(void* shared, const void* map, int x, int y, uint64_t* barrier, Site site);
void tensor_store(const void* map, const void* shared, int x, int y, Site site);
void bulk_commit(Site site);
void bulk_wait(int newest_left, Site site);

// Products of a warpgroup. `a` is a descriptor, or a fragment where `a_registers` is not null.
struct WgmmaCall {
    float* d;
    int columns;
    const uint32_t* a_registers;
    uint64_t a, b;
    bool b_transposed, accumulate;
    Element element;
};
uint64_t shared_descriptor(const void* address, int leading_bytes, int stride_bytes, Site site);
void wgmma(const WgmmaCall& call, Site site);
void wgmma_fence(Site site);
void wgmma_commit(Site site);
void wgmma_wait(int newest_left, Site site);

}  // namespace emulator
#pragma GCC visibility pop
