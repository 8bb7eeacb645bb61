// An NVIDIA driver for tests: what lowkey calls of libcuda, with host memory for the GPU's and the emulator for its kernels.
// LOWKEY_FAKE_GPU describes it, as `key=value` words:
//   version=13000 gpus=1 capability=90 memory=BYTES init=STATUS image=STATUS fault=KERNEL
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "emulator/api.h"

namespace {

enum Status { kSuccess = 0, kInvalid = 1, kOutOfMemory = 2, kNoDevice = 100, kNotFound = 500, kCapturing = 900, kFault = 719 };

struct Launch {
    std::string kernel;
    uint32_t grid[3], threads;
    uint64_t shared;
    std::vector<unsigned char> params;
};
struct Work {
    enum Kind { kLaunch, kSet, kCopy } kind;
    Launch launch;
    unsigned char *to, *from;
    size_t bytes;
};
struct Stream {
    bool capturing = false;
    std::vector<Work> work;
};
struct Graph {
    std::vector<Work> work;
};
struct Event {
    bool recorded = false;
};
struct Function {
    std::string name;
};

std::recursive_mutex g_mutex;
std::map<unsigned char*, size_t> g_memory;
size_t g_held = 0;
bool g_lost = false;

std::string setting(const char* key, const char* otherwise) {
    const char* all = getenv("LOWKEY_FAKE_GPU");
    std::string text = std::string(" ") + (all ? all : "") + " ", word = std::string(" ") + key + "=";
    const size_t at = text.find(word);
    if (at == std::string::npos) return otherwise;
    const size_t start = at + word.size();
    return text.substr(start, text.find(' ', start) - start);
}
uint64_t number(const char* key, const char* otherwise) { return strtoull(setting(key, otherwise).c_str(), nullptr, 10); }

const LkApi* emulator() {
    static const LkApi* api = [] {
        const char* path = getenv("LOWKEY_FAKE_EMULATOR");
        void* library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
        if (!library) {
            fprintf(stderr, "fake driver: no emulator: %s\n", path ? dlerror() : "LOWKEY_FAKE_EMULATOR is not set");
            abort();
        }
        return reinterpret_cast<const LkApi* (*)()>(dlsym(library, "lowkey_emulator"))();
    }();
    return api;
}

int perform(const Work& work) {
    switch (work.kind) {
    case Work::kSet: memset(work.to, 0, work.bytes); return kSuccess;
    case Work::kCopy: memmove(work.to, work.from, work.bytes); return kSuccess;
    case Work::kLaunch: break;
    }
    char error[2048] = "";
    LkLaunch launch{};
    launch.kernel = work.launch.kernel.c_str();
    memcpy(launch.grid, work.launch.grid, sizeof launch.grid);
    launch.block[0] = work.launch.threads;
    launch.block[1] = launch.block[2] = 1;
    launch.shared_bytes = work.launch.shared;
    launch.params = work.launch.params.data();
    launch.params_bytes = work.launch.params.size();
    launch.os_threads = 1;
    launch.arch = 90;
    launch.error = error;
    launch.error_bytes = sizeof error;
    const bool planted = work.launch.kernel == setting("fault", "");
    if (planted || emulator()->launch(&launch)) {
        if (!planted) fprintf(stderr, "fake driver: %s\n", error);
        g_lost = true;
    }
    // A fault is seen at the next wait, as on a GPU.
    return kSuccess;
}

int give(Stream* stream, const Work& work) {
    std::lock_guard<std::recursive_mutex> lock(g_mutex);
    if (g_lost) return kFault;
    if (stream->capturing) {
        stream->work.push_back(work);
        return kSuccess;
    }
    return perform(work);
}

int lost() { return g_lost ? kFault : kSuccess; }

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(unsigned) { return int(number("init", "0")); }
API cuDriverGetVersion(int* version) { return *version = int(number("version", "13000")), kSuccess; }
API cuDeviceGetCount(int* count) { return *count = int(number("gpus", "1")), kSuccess; }
API cuDeviceGet(int* gpu, int ordinal) { return *gpu = ordinal, kSuccess; }
API cuDeviceGetName(char* name, int length, int) { return snprintf(name, size_t(length), "Fake GPU"), kSuccess; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = int(number("capability", "90"));
    switch (attribute) {
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 97: *value = 227 * 1024; break;
    default: *value = 1;
    }
    return kSuccess;
}
API cuDevicePrimaryCtxRetain(void** context, int) { return *context = &g_lost, kSuccess; }
API cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
API cuCtxSetCurrent(void*) { return kSuccess; }
API cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &g_memory, kSuccess; }
API cuMemPoolSetAttribute(void*, int, void*) { return kSuccess; }
API cuPointerGetAttribute(void*, int, uint64_t) { return kInvalid; }

API cuGetErrorName(int status, const char** text) {
    static const std::map<int, const char*> names = {
        {kInvalid, "CUDA_ERROR_INVALID_VALUE"},     {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
        {kNoDevice, "CUDA_ERROR_NO_DEVICE"},        {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {kNotFound, "CUDA_ERROR_NOT_FOUND"},        {kFault, "CUDA_ERROR_LAUNCH_FAILED"},
        {999, "CUDA_ERROR_UNKNOWN"},
    };
    const auto name = names.find(status);
    if (name == names.end()) return kInvalid;
    *text = name->second;
    return kSuccess;
}

API cuStreamCreate(void** stream, unsigned) { return *stream = new Stream, lost(); }
API cuStreamDestroy_v2(void* stream) { return delete static_cast<Stream*>(stream), lost(); }
API cuStreamSynchronize(void* stream) { return static_cast<Stream*>(stream)->capturing ? int(kCapturing) : lost(); }
API cuStreamWaitEvent(void*, void* event, unsigned) { return static_cast<Event*>(event)->recorded ? lost() : int(kInvalid); }
API cuEventCreate(void** event, unsigned) { return *event = new Event, lost(); }
API cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), kSuccess; }
API cuEventRecord(void* event, void*) { return static_cast<Event*>(event)->recorded = true, lost(); }
API cuEventSynchronize(void*) { return lost(); }
API cuEventElapsedTime_v2(float* milliseconds, void*, void*) { return *milliseconds = 0.25f, lost(); }

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    std::lock_guard<std::recursive_mutex> lock(g_mutex);
    *total = number("memory", "1073741824");
    *free = *total - g_held;
    return kSuccess;
}
API cuMemAllocAsync(uint64_t* address, size_t bytes, void* stream) {
    std::lock_guard<std::recursive_mutex> lock(g_mutex);
    if (g_lost) return kFault;
    if (static_cast<Stream*>(stream)->capturing) return kCapturing;
    if (bytes > number("memory", "1073741824") - g_held) return kOutOfMemory;
    auto* memory = static_cast<unsigned char*>(emulator()->alloc(bytes));
    if (!memory) return kOutOfMemory;
    g_memory[memory] = bytes;
    g_held += bytes;
    *address = reinterpret_cast<uint64_t>(memory);
    return kSuccess;
}
API cuMemFreeAsync(uint64_t address, void* stream) {
    std::lock_guard<std::recursive_mutex> lock(g_mutex);
    if (static_cast<Stream*>(stream)->capturing) return kCapturing;
    const auto found = g_memory.find(reinterpret_cast<unsigned char*>(address));
    if (found == g_memory.end()) return kInvalid;
    g_held -= found->second;
    if (emulator()->free(found->first)) g_lost = true;
    g_memory.erase(found);
    return lost();
}
API cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, void* stream) {
    if (value) return kInvalid;
    return give(static_cast<Stream*>(stream), {Work::kSet, {}, reinterpret_cast<unsigned char*>(address), nullptr, bytes});
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    return g_lost ? int(kFault) : (memcpy(reinterpret_cast<void*>(to), from, bytes), int(kSuccess));
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    return g_lost ? int(kFault) : (memcpy(to, reinterpret_cast<void*>(from), bytes), int(kSuccess));
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    auto pointer = [](uint64_t address) { return reinterpret_cast<unsigned char*>(address); };
    return give(static_cast<Stream*>(stream), {Work::kCopy, {}, pointer(to), pointer(from), bytes});
}

API cuModuleLoadData(void** module, const void* image) {
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    *module = &g_mutex;
    // The first word of every fatbin.
    return magic == 0xba55ed50u ? int(number("image", "0")) : int(kInvalid);
}
API cuModuleGetFunction(void** function, void*, const char* name) {
    LkKernelInfo info;
    for (uint32_t i = 0; i < emulator()->kernel_count(); i++)
        if (!emulator()->kernel(i, &info) && !strcmp(info.name, name)) return *function = new Function{name}, kSuccess;
    return kNotFound;
}
API cuFuncSetAttribute(void*, int, int) { return kSuccess; }
API cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* stream, void** arguments, void**) {
    const std::string& name = static_cast<Function*>(function)->name;
    LkKernelInfo info{};
    for (uint32_t i = 0; i < emulator()->kernel_count(); i++)
        if (!emulator()->kernel(i, &info) && name == info.name) break;
    if (by != 1 || bz != 1 || bx > info.max_threads) return kInvalid;
    const auto* bytes = static_cast<const unsigned char*>(arguments[0]);
    Launch launch{name, {x, y, z}, bx, shared, {bytes, bytes + info.params_bytes}};
    return give(static_cast<Stream*>(stream), {Work::kLaunch, launch, nullptr, nullptr, 0});
}

API cuTensorMapEncodeTiled(void* map, int, uint32_t rank, void* base, const uint64_t* extents, const uint64_t* row_bytes,
                           const uint32_t* tile, const uint32_t*, int, int swizzle, int, int) {
    if (rank != 2 || swizzle != 3) return kInvalid;
    return emulator()->tensor_map(map, base, 2, extents[1], extents[0], *row_bytes, tile[1], tile[0], 128) ? int(kInvalid)
                                                                                                         : int(kSuccess);
}

API cuStreamBeginCapture_v2(void* stream, int) { return static_cast<Stream*>(stream)->capturing = true, lost(); }
API cuStreamEndCapture(void* stream, void** graph) {
    auto* captured = static_cast<Stream*>(stream);
    captured->capturing = false;
    *graph = new Graph{std::move(captured->work)};
    captured->work.clear();
    return lost();
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, uint64_t) {
    return *executable = new Graph(*static_cast<Graph*>(graph)), lost();
}
API cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), kSuccess; }
API cuGraphExecDestroy(void* graph) { return delete static_cast<Graph*>(graph), kSuccess; }
API cuGraphLaunch(void* graph, void* stream) {
    for (const Work& work : static_cast<Graph*>(graph)->work)
        if (const int status = give(static_cast<Stream*>(stream), work)) return status;
    return kSuccess;
}
