// What is remembered of each word of shared and global memory.
#pragma once
#include <array>
#include <cstddef>
#include <vector>

#include "checker.h"
#include "checker_clocks.h"

#pragma GCC visibility push(hidden)
namespace emulator::checker {

// A source line (a site's number, with the top bit set) or a code address relative to the library.
using Where = uint32_t;

struct Access {
    Where where = 0;
    Epoch epoch = 0;     // the agent's clock, or the number of its group or phase
    uint32_t block = 0;  // 0 for none
    uint16_t agent = 0;
    Kind kind = Kind::None;
};

// Of one word, or of one byte of a word whose bytes have different histories.
struct Record {
    Access write;
    Access read;               // the latest
    uint32_t readers = 0;      // the latest read of every thread, where several have read since the last barrier
    uint32_t generation = 0;   // of that set
    uint32_t async_reads = 0;  // reads of asynchronous operations
    bool written = false;
};

using Readers = std::vector<Access>;          // by thread
using AsyncReads = std::array<Access, 4>;  // one for each warp of a warpgroup

// The records of a range of memory, made as they are touched.
class Shadow {
  public:
    explicit Shadow(size_t bytes);
    Shadow(const Shadow&) = delete;
    Shadow& operator=(const Shadow&) = delete;
    ~Shadow();

    // The words are another block's from now on.
    void forget();
    // A barrier of the whole block orders all reads before it.
    void forget_readers();

    // Calls visit(record) for each record that covers any of the bytes, until it returns false. `uniform` says that
    // visiting leaves all of them alike.
    template <class Visit> bool each(size_t offset, size_t bytes, bool uniform, Visit visit);

    // Null where there is no such set, unless one is to be made.
    Readers* readers(Record& record, int threads_to_make);
    AsyncReads* async_reads(Record& record, bool make);

  private:
    struct Cell {
        Record word;
        uint32_t split = 0;  // its bytes' records, from 1
        uint32_t era = 0;
    };
    void split(Cell& cell);
    bool current_readers(const Record& record) const { return record.readers && record.generation == generation_; }

    size_t mapped_bytes_;
    Cell* cells_;
    uint32_t era_ = 1, generation_ = 1;
    std::vector<std::array<Record, 4>> splits_;
    std::vector<Readers> readers_;
    size_t readers_used_ = 0;
    std::vector<AsyncReads> async_reads_;
};

template <class Visit> bool Shadow::each(size_t offset, size_t bytes, bool uniform, Visit visit) {
    const size_t end = offset + bytes;
    for (size_t word = offset / 4; word * 4 < end; word++) {
        Cell& cell = cells_[word];
        if (cell.era != era_) {
            cell = Cell{};
            cell.era = era_;
        }
        const size_t from = offset > word * 4 ? offset - word * 4 : 0, to = end < word * 4 + 4 ? end - word * 4 : 4;
        const bool whole = from == 0 && to == 4;
        if (whole && !cell.split) {
            if (!visit(cell.word)) return false;
            continue;
        }
        if (!cell.split) split(cell);
        for (size_t i = from; i < to; i++)
            if (!visit(splits_[cell.split - 1][i])) return false;
        if (whole && uniform) {
            cell.word = splits_[cell.split - 1][0];
            cell.split = 0;
        }
    }
    return true;
}

}  // namespace emulator::checker
#pragma GCC visibility pop
