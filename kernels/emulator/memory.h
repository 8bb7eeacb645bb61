// Device buffers and shared memory, poisoned and guarded.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#pragma GCC visibility push(hidden)
namespace emulator {

struct Buffer {
    char* map;
    size_t map_bytes;
    char* data;
    size_t bytes;
};

void* allocate_buffer(size_t bytes);
int free_buffer(void* data);
std::vector<Buffer> all_buffers();  // by address

// Shared memory of the block that runs: it ends at a guard page and its start is a multiple of 128.
class SharedArena {
  public:
    static constexpr size_t kCapacity = 256 << 10;
    ~SharedArena();
    void resize(size_t bytes);
    void poison();
    bool slack_untouched() const;
    unsigned char* begin() const { return begin_; }
    size_t bytes() const { return bytes_; }
    // A multiple of 1024, from which shared addresses are counted.
    unsigned char* window() const { return map_; }
    bool contains_map(const void* address) const;

  private:
    unsigned char* first_page() const;
    unsigned char* map_ = nullptr;
    unsigned char* begin_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace emulator
#pragma GCC visibility pop
