#include "memory.h"

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>

#include "sanitizers.h"

namespace emulator {
namespace {

constexpr size_t kPage = 4096;
constexpr unsigned char kPoison = 0xff;  // a NaN in every float format

size_t round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Reserved: what is not to be had is refused here, and not by ending the process when it is written.
char* map_pages(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}

bool all_poison(const void* from, const void* to) {
    for (auto* p = static_cast<const unsigned char*>(from); p < to; p++)
        if (*p != kPoison) return false;
    return true;
}

std::mutex buffers_mutex;
std::map<char*, Buffer>& buffers() {
    static auto& all = *new std::map<char*, Buffer>;  // outlives static destructors
    return all;
}

}  // namespace

void* allocate_buffer(size_t bytes) {
    if (bytes > size_t(1) << 46) return nullptr;
    const size_t body = round_up(bytes ? bytes : 1, kPage), map_bytes = body + 2 * kPage;
    char* map = map_pages(map_bytes);
    if (!map) return nullptr;
    mprotect(map, kPage, PROT_NONE);
    mprotect(map + kPage + body, kPage, PROT_NONE);
    memset(map + kPage, kPoison, body);
    char* data = map + kPage + body - round_up(bytes, 16);
    ASAN_POISON_MEMORY_REGION(map + kPage, body);
    ASAN_UNPOISON_MEMORY_REGION(data, bytes);
    std::lock_guard<std::mutex> lock(buffers_mutex);
    buffers()[data] = Buffer{map, map_bytes, data, bytes};
    return data;
}

int free_buffer(void* data) {
    Buffer buffer;
    {
        std::lock_guard<std::mutex> lock(buffers_mutex);
        const auto found = buffers().find(static_cast<char*>(data));
        if (found == buffers().end()) return -1;
        buffer = found->second;
        buffers().erase(found);
    }
    char *first = buffer.map + kPage, *last = buffer.map + buffer.map_bytes - kPage;
    ASAN_UNPOISON_MEMORY_REGION(first, size_t(last - first));
    const bool untouched = all_poison(first, buffer.data) && all_poison(buffer.data + buffer.bytes, last);
    munmap(buffer.map, buffer.map_bytes);
    return untouched ? 0 : -1;
}

std::vector<Buffer> all_buffers() {
    std::lock_guard<std::mutex> lock(buffers_mutex);
    std::vector<Buffer> list;
    list.reserve(buffers().size());
    for (const auto& entry : buffers()) list.push_back(entry.second);
    return list;
}

unsigned char* SharedArena::first_page() const {
    return map_ + size_t(begin_ - map_) / kPage * kPage;
}

SharedArena::~SharedArena() {
    if (!map_) return;
    ASAN_UNPOISON_MEMORY_REGION(map_, kCapacity);  // or what is mapped there next seems poisoned
    munmap(map_, kCapacity + kPage);
}

void SharedArena::resize(size_t bytes) {
    if (!map_) {
        map_ = reinterpret_cast<unsigned char*>(map_pages(kCapacity + kPage));
        mprotect(map_ + kCapacity, kPage, PROT_NONE);
    }
    ASAN_UNPOISON_MEMORY_REGION(map_, kCapacity);
    bytes_ = bytes;
    begin_ = map_ + kCapacity - round_up(bytes, 128);
    mprotect(map_, size_t(first_page() - map_), PROT_NONE);
    mprotect(first_page(), size_t(map_ + kCapacity - first_page()), PROT_READ | PROT_WRITE);
}

void SharedArena::poison() {
    unsigned char* first = first_page();
    const size_t bytes = size_t(map_ + kCapacity - first);
    ASAN_UNPOISON_MEMORY_REGION(first, bytes);
    memset(first, kPoison, bytes);
    ASAN_POISON_MEMORY_REGION(first, bytes);
    ASAN_UNPOISON_MEMORY_REGION(begin_, bytes_);
}

bool SharedArena::slack_untouched() const {
#if EMULATOR_ASAN
    return true;
#else
    return all_poison(first_page(), begin_) && all_poison(begin_ + bytes_, map_ + kCapacity);
#endif
}

bool SharedArena::contains_map(const void* address) const {
    return map_ && address >= map_ && address < map_ + kCapacity + kPage;
}

}  // namespace emulator
