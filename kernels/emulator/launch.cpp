// The table of functions that a host program calls, and the launch of a grid.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "checker.h"
#include "tensor_map.h"
#include "worker.h"

namespace emulator {
namespace {

Kernel* first_kernel = nullptr;

const Kernel* find_kernel(const char* name) {
    for (const Kernel* k = first_kernel; k; k = k->next)
        if (!strcmp(k->name, name)) return k;
    return nullptr;
}

std::mutex workers_mutex;
std::vector<Worker*>& idle_workers() {
    static auto& all = *new std::vector<Worker*>;  // kept for the next launch
    return all;
}

// A stack and its guard are two mappings each, and a process that loads many emulators has only so many.
void trim() {
    std::lock_guard<std::mutex> lock(workers_mutex);
    for (Worker* w : idle_workers()) {
        free_fibers(*w);
        delete w;
    }
    idle_workers().clear();
}

Worker* take_worker() {
    std::lock_guard<std::mutex> lock(workers_mutex);
    if (idle_workers().empty()) return new Worker;
    Worker* w = idle_workers().back();
    idle_workers().pop_back();
    return w;
}

void give_back(Worker* w) {
    std::lock_guard<std::mutex> lock(workers_mutex);
    idle_workers().push_back(w);
}

std::mutex sites_mutex;
std::vector<LkSite> seen_sites;

void remember_site(Site site, const char* kind) {
    std::lock_guard<std::mutex> lock(sites_mutex);
    for (const LkSite& seen : seen_sites)
        if (int(seen.line) == site.line && !strcmp(seen.kind, kind) && !strcmp(seen.file, site.file)) return;
    seen_sites.push_back(LkSite{site.file, kind, uint32_t(site.line), 0});
}

bool ends_with(const char* text, const char* end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

uint64_t shared_limit(uint32_t arch) {
    switch (arch) {
    case 80: return 163 << 10;
    case 90:
    case 100: return 227 << 10;
    case 120: return 99 << 10;
    default: return 0;
    }
}

std::string refusal(const LkLaunch& request, const Kernel& kernel) {
    char text[256];
    const auto say = [&](auto... arguments) {
        snprintf(text, sizeof text, arguments...);
        return std::string(text);
    };
    const uint64_t threads = uint64_t(request.block[0]) * request.block[1] * request.block[2];
    const uint64_t limit = shared_limit(request.arch);
    if (!limit) return say("no architecture %u: 80, 90, 100 or 120", request.arch);
    if (request.arch != 90 && ends_with(kernel.file, "_sm90.cu"))
        return say("is made for architecture 90, not %u", request.arch);
    if (request.params_bytes != kernel.params_bytes)
        return say("takes %u bytes of parameters, not %llu", kernel.params_bytes,
                   (unsigned long long)request.params_bytes);
    if (request.params_bytes > sizeof Worker::params)
        return say("%u bytes of parameters: at most %zu", kernel.params_bytes, sizeof Worker::params);
    if (!threads || threads > kMaxThreads || threads > kernel.max_threads)
        return say("%llu threads in a block: 1 to %u", (unsigned long long)threads, kernel.max_threads);
    if (request.shared_bytes > limit)
        return say("%llu bytes of shared memory: architecture %u has %llu", (unsigned long long)request.shared_bytes,
                   request.arch, (unsigned long long)limit);
    if (!request.grid[0] || !request.grid[1] || !request.grid[2] || request.grid[1] > 65535 ||
        request.grid[2] > 65535 || request.grid[0] > 0x7fffffffu)
        return say("a grid of %u x %u x %u blocks", request.grid[0], request.grid[1], request.grid[2]);
    return "";
}

std::vector<uint32_t> block_order(uint64_t blocks, uint64_t schedule) {
    std::vector<uint32_t> order(blocks);
    for (uint64_t i = 0; i < blocks; i++) order[i] = uint32_t(schedule == 1 ? blocks - 1 - i : i);
    Random random{schedule};
    if (schedule >= 2)
        for (uint64_t i = blocks - 1; i > 0; i--) std::swap(order[i], order[random.below(unsigned(i + 1))]);
    return order;
}

void add(LkStats& to, const LkStats& from) {
    auto* sum = reinterpret_cast<uint64_t*>(&to);
    auto* part = reinterpret_cast<const uint64_t*>(&from);
    for (size_t i = 0; i < sizeof(LkStats) / sizeof(uint64_t); i++) sum[i] += part[i];
}

class Grid {
  public:
    Grid(const LkLaunch& request, const Kernel& kernel)
        : launch_{&request,
                  &kernel,
                  int(request.block[0] * request.block[1] * request.block[2]),
                  0,
                  {request.grid[0], request.grid[1], request.grid[2]},
                  {request.block[0], request.block[1], request.block[2]},
                  all_buffers()},
          order_(block_order(uint64_t(request.grid[0]) * request.grid[1] * request.grid[2], request.schedule)) {
        launch_.warps = (launch_.threads + 31) / 32;
    }

    void run() {
        uint64_t threads = launch_.kernel->checked ? 1 : launch_.request->os_threads;
        threads = std::max<uint64_t>(1, std::min<uint64_t>(threads, order_.size()));
        std::vector<std::thread> helpers;
        for (uint64_t i = 1; i < threads; i++) helpers.emplace_back([this] { run_blocks(); });
        run_blocks();
        for (std::thread& helper : helpers) helper.join();
    }

    bool failed() const { return stop_; }
    const Failure& failure() const { return failure_; }
    const LkStats& stats() const { return stats_; }

  private:
    void run_blocks() {
        AlternateStack alternate;
        Worker* w = take_worker();
        w->launch = &launch_;
        w->failed = false;
        w->last_buffer = nullptr;
        w->stats = LkStats{};
        memcpy(w->params, launch_.request->params, launch_.request->params_bytes);
        prepare_fibers(*w, launch_.threads);
        w->shared.resize(launch_.request->shared_bytes);
        worker = w;
        checker::begin_launch(*w);
        for (uint64_t i; !stop_ && (i = next_++) < order_.size();) {
            const uint32_t n = order_[i], x = launch_.grid.x, y = launch_.grid.y;
            run_block(*w, Index3{n % x, n / x % y, n / (x * y)}, n);
            if (w->failed) break;
        }
        checker::end_launch(*w);
        worker = nullptr;
        std::lock_guard<std::mutex> lock(mutex_);
        if (w->failed && !stop_.exchange(true)) failure_ = w->failure;
        add(stats_, w->stats);
        give_back(w);
    }

    Launch launch_;
    std::vector<uint32_t> order_;
    std::atomic<uint64_t> next_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    Failure failure_;
    LkStats stats_{};
};

// Where a failure happened, without the line of the KERNEL macro, into which every kernel's body is inlined.
std::string line_of(const Failure::Place& place, const Kernel& kernel) {
    if (!place.address) return place.before;
    std::string line = source_line(place.address);
    const size_t caller = line.find(", called at ");
    const std::string whole = describe_site(Site{kernel.file, kernel.line});
    if (caller != std::string::npos && ends_with(line.c_str(), whole.c_str())) line.resize(caller);
    return place.before + line;
}

constexpr int32_t kFault = 1, kRefused = 2;

int32_t say(const LkLaunch& request, int32_t status, const std::string& text) {
    if (request.error && request.error_bytes) snprintf(request.error, request.error_bytes, "%s", text.c_str());
    return status;
}

uint32_t api_kernel_count() {
    uint32_t count = 0;
    for (const Kernel* k = first_kernel; k; k = k->next) count++;
    return count;
}

int32_t api_kernel(uint32_t index, LkKernelInfo* info) {
    const Kernel* k = first_kernel;
    while (k && index--) k = k->next;
    if (!k) return -1;
    *info = LkKernelInfo{k->name, k->file, uint32_t(k->line), k->params_bytes, k->max_threads, 0};
    return 0;
}

int32_t launch(const LkLaunch* request) {
    if (request->error && request->error_bytes) *request->error = 0;
    const Kernel* kernel = find_kernel(request->kernel);
    if (!kernel) return say(*request, kRefused, std::string(request->kernel) + ": no such kernel");
    const std::string name = std::string(kernel->name) + ": ";
    const std::string refused = refusal(*request, *kernel);
    if (!refused.empty()) return say(*request, kRefused, name + refused);
    catch_faults();
    Grid grid(*request, *kernel);
    grid.run();
    if (request->stats) *request->stats = grid.stats();
    if (!grid.failed()) return 0;
    std::string text = name + grid.failure().text;
    for (const Failure::Place& place : grid.failure().places) text += line_of(place, *kernel);
    return say(*request, kFault, text);
}

// No exception leaves through a C interface: what is thrown here is of the host, such as memory that has run out.
int32_t api_launch(const LkLaunch* request) {
    try {
        return launch(request);
    } catch (const std::exception& error) {
        return say(*request, kRefused, std::string(request->kernel) + ": " + error.what());
    }
}

int32_t api_checked() {
    return first_kernel && first_kernel->checked;
}

uint64_t api_sites(LkSite* out, uint64_t capacity) {
    std::lock_guard<std::mutex> lock(sites_mutex);
    for (uint64_t i = 0; i < seen_sites.size() && i < capacity; i++) out[i] = seen_sites[i];
    return seen_sites.size();
}

void api_reset_sites() {
    std::lock_guard<std::mutex> lock(sites_mutex);
    seen_sites.clear();
}

void* api_alloc(uint64_t bytes) {
    return allocate_buffer(bytes);
}

int32_t api_free(void* pointer) {
    return free_buffer(pointer);
}

}  // namespace

Kernel::Kernel(const char* name, const char* file, int line, uint32_t params_bytes, uint32_t max_threads, bool checked,
               void (*run)(const void*))
    : name(name), file(file), line(line), params_bytes(params_bytes), max_threads(max_threads), checked(checked),
      run(run), next(first_kernel) {
    first_kernel = this;
}

bool site_skipped(Site site, const char* kind) {
    const LkLaunch& request = *worker->launch->request;
    if (request.trace) remember_site(site, kind);
    return request.skip_file && int(request.skip_line) == site.line && ends_with(site.file, request.skip_file);
}

Index3 thread_index() {
    return worker->current->thread;
}
Index3 block_index() {
    return worker->block;
}
Index3 block_dim() {
    return worker->launch->block;
}
Index3 grid_dim() {
    return worker->launch->grid;
}
int lane_index() {
    return worker->current->lane;
}
unsigned char* shared_memory() {
    return worker->shared.begin();
}
uint64_t clock_ticks() {
    return worker->stats.switches;
}

}  // namespace emulator

extern "C" const LkApi* lowkey_emulator(void) {
    using namespace emulator;
    static const LkApi api{LK_ABI,    0,           api_kernel_count, api_kernel,      api_launch,
                           api_alloc, api_free,    api_checked,      api_sites,       api_reset_sites, trim,
                           encode_tensor_map};
    return &api;
}
