#include "checker_shadow.h"

#include <sys/mman.h>

#include <new>

namespace emulator::checker {

// Fresh pages are cells of era zero, which is no block's.
Shadow::Shadow(size_t bytes) : mapped_bytes_((bytes / 4 + 1) * sizeof(Cell)) {
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* map = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    cells_ = static_cast<Cell*>(map);
}

Shadow::~Shadow() {
    munmap(cells_, mapped_bytes_);
}

void Shadow::forget() {
    era_++;
    splits_.clear();
    async_reads_.clear();
    forget_readers();
}

void Shadow::forget_readers() {
    generation_++;
    readers_used_ = 0;
}

void Shadow::split(Cell& cell) {
    splits_.emplace_back();
    cell.split = uint32_t(splits_.size());
    for (Record& byte : splits_.back()) {
        byte = cell.word;
        if (current_readers(cell.word)) {
            const Readers copy = readers_[cell.word.readers - 1];
            byte.readers = 0;
            *readers(byte, int(copy.size())) = copy;
        }
        if (cell.word.async_reads) {
            const AsyncReads copy = async_reads_[cell.word.async_reads - 1];
            byte.async_reads = 0;
            *async_reads(byte, true) = copy;
        }
    }
}

Readers* Shadow::readers(Record& record, int threads_to_make) {
    if (current_readers(record)) return &readers_[record.readers - 1];
    if (!threads_to_make) return nullptr;
    if (readers_used_ == readers_.size()) readers_.emplace_back();
    Readers& fresh = readers_[readers_used_++];
    fresh.assign(size_t(threads_to_make), Access{});
    record.readers = uint32_t(readers_used_);
    record.generation = generation_;
    return &fresh;
}

AsyncReads* Shadow::async_reads(Record& record, bool make) {
    if (record.async_reads) return &async_reads_[record.async_reads - 1];
    if (!make) return nullptr;
    async_reads_.emplace_back();
    record.async_reads = uint32_t(async_reads_.size());
    return &async_reads_.back();
}

}  // namespace emulator::checker
