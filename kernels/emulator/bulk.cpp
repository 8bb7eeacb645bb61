// Bulk and tensor copies between shared and global memory.
#include <algorithm>
#include <cstring>

#include "checker.h"
#include "tensor_map.h"
#include "worker.h"

namespace emulator {
namespace {

struct BulkLoad {
    void* to;
    const void* from;
    uint32_t bytes;
    int mbarrier;
};

void run_bulk_load(const void* payload) {
    const auto& copy = *static_cast<const BulkLoad*>(payload);
    memcpy(copy.to, copy.from, copy.bytes);
    add_bytes(copy.mbarrier, -int64_t(copy.bytes));
}

struct BulkStore {
    void* to;
    const void* from;
    uint32_t bytes;
};

void run_bulk_store(const void* payload) {
    const auto& copy = *static_cast<const BulkStore*>(payload);
    memcpy(copy.to, copy.from, copy.bytes);
}

struct TileCopy {
    TensorMap map;
    unsigned char* tile;
    int x, y, mbarrier;
};

// Calls visit(in shared memory, in global memory or null, bytes) for each 16-byte chunk of a tile, and for its parts
// where the matrix's edge cuts it.
template <class Visit> void each_chunk(const TileCopy& copy, Visit visit) {
    const TensorMap& map = copy.map;
    unsigned char* window = worker->shared.window();
    const int64_t row_bytes = int64_t(map.box_columns) * map.element_bytes;
    const int64_t matrix_bytes = int64_t(map.columns) * map.element_bytes, first = int64_t(copy.x) * map.element_bytes;
    for (int64_t row = 0; row < int64_t(map.box_rows); row++)
        for (int64_t byte = 0; byte < row_bytes; byte += 16) {
            const uint64_t offset = uint64_t(copy.tile - window) + uint64_t(row * row_bytes + byte);
            unsigned char* chunk = window + swizzled(offset, map.swizzle);
            const int64_t y = copy.y + row, from = first + byte;
            const bool row_inside = y >= 0 && y < int64_t(map.rows);
            const int64_t low = row_inside ? std::clamp<int64_t>(-from, 0, 16) : 16;
            const int64_t high = row_inside ? std::clamp<int64_t>(matrix_bytes - from, low, 16) : 16;
            char* global = map.base + y * int64_t(map.row_bytes) + from;
            if (low) visit(chunk, static_cast<char*>(nullptr), size_t(low));
            if (high > low) visit(chunk + low, global + low, size_t(high - low));
            if (high < 16) visit(chunk + high, static_cast<char*>(nullptr), size_t(16 - high));
        }
}

uint32_t tile_bytes(const TensorMap& map) {
    return map.box_rows * map.box_columns * map.element_bytes;
}

void run_tile_load(const void* payload) {
    const auto& copy = *static_cast<const TileCopy*>(payload);
    each_chunk(copy, [](unsigned char* shared, const char* global, size_t bytes) {
        if (global) memcpy(shared, global, bytes);
        else memset(shared, 0, bytes);
    });
    add_bytes(copy.mbarrier, -int64_t(tile_bytes(copy.map)));
}

void run_tile_store(const void* payload) {
    each_chunk(*static_cast<const TileCopy*>(payload), [](const unsigned char* shared, char* global, size_t bytes) {
        if (global) memcpy(global, shared, bytes);
    });
}

TileCopy tile_copy(const void* map, const void* shared, int x, int y, const char* what, Site site) {
    TileCopy copy{{}, static_cast<unsigned char*>(const_cast<void*>(shared)), x, y, -1};
    if (uintptr_t(map) % 64) fail(site, "%s: misaligned: the tensor map is at no multiple of 64", what);
    memcpy(&copy.map, map, sizeof copy.map);
    if (copy.map.mark != TensorMap::kMark) fail(site, "%s: not a tensor map", what);
    check_shared(shared, tile_bytes(copy.map), 128, what, site);
    // The part of the matrix that the tile covers.
    each_chunk(copy, [&](unsigned char*, char* global, size_t bytes) {
        if (global) check_global(global, bytes, 1, what, site);
    });
    return copy;
}

int start_load(Mbarrier& barrier) {
    barrier.last_copy_phase = barrier.phases + 1;
    return int(&barrier - worker->mbarriers.data());
}

void check_bulk(const void* shared, const void* global, uint32_t bytes, const char* what, Site site) {
    if (bytes % 16) fail(site, "%s: misaligned: %u bytes are no multiple of 16", what, bytes);
    check_shared(shared, bytes, 16, what, site);
    check_global(global, bytes, 16, what, site);
}

}  // namespace

void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, Site site) {
    enter("bulk load", site);
    check_bulk(shared, global, bytes, "bulk load", site);
    const BulkLoad copy{shared, global, bytes, start_load(find_mbarrier(barrier, true, site))};
    checker::access(*worker, global, bytes, false, checker::Kind::Plain, site);
    checker::bulk_load(*worker, shared, bytes, copy.mbarrier, site);
    worker->stats.bulk_bytes += bytes;
    issue_async(run_bulk_load, &copy, sizeof copy);
}

void bulk_store(void* global, const void* shared, uint32_t bytes, Site site) {
    enter("bulk store", site);
    check_bulk(shared, global, bytes, "bulk store", site);
    checker::access(*worker, shared, bytes, false, checker::Kind::BulkStore, site);
    checker::access(*worker, global, bytes, true, checker::Kind::Plain, site);
    const BulkStore copy{global, shared, bytes};
    worker->stats.bulk_bytes += bytes;
    worker->current->bulk_open++;
    worker->current->bulk_site = site;
    issue_async(run_bulk_store, &copy, sizeof copy);
}

void tensor_load(void* shared, const void* map, int x, int y, uint64_t* barrier, Site site) {
    enter("tensor load", site);
    TileCopy copy = tile_copy(map, shared, x, y, "tensor load", site);
    copy.mbarrier = start_load(find_mbarrier(barrier, true, site));
    checker::bulk_load(*worker, shared, tile_bytes(copy.map), copy.mbarrier, site);
    worker->stats.bulk_bytes += tile_bytes(copy.map);
    issue_async(run_tile_load, &copy, sizeof copy);
}

void tensor_store(const void* map, const void* shared, int x, int y, Site site) {
    enter("tensor store", site);
    const TileCopy copy = tile_copy(map, shared, x, y, "tensor store", site);
    checker::access(*worker, shared, tile_bytes(copy.map), false, checker::Kind::BulkStore, site);
    each_chunk(copy, [&](unsigned char*, char* global, size_t bytes) {
        if (global) checker::access(*worker, global, bytes, true, checker::Kind::Plain, site);
    });
    worker->stats.bulk_bytes += tile_bytes(copy.map);
    worker->current->bulk_open++;
    worker->current->bulk_site = site;
    issue_async(run_tile_store, &copy, sizeof copy);
}

void bulk_commit(Site) {
    Fiber& fiber = *worker->current;
    fiber.bulk_open = 0;
    fiber.bulk_closed++;
    checker::commit_bulk_stores(*worker);
}

// Stores are carried out when their thread waits at the latest, with whatever else is under way.
void bulk_wait(int newest_left, Site site) {
    enter("bulk wait", site);
    if (site_skipped(site, "bulk wait")) return;
    Worker& w = *worker;
    while (!w.async.empty() && !w.failed) run_one_async(w);
    if (w.failed) abandon_thread();
    Fiber& fiber = *w.current;
    fiber.bulk_waited = std::max(fiber.bulk_waited, fiber.bulk_closed - newest_left);
    checker::wait_bulk_stores(w, size_t(newest_left));
}

void check_bulk_at_exit(Fiber& fiber) {
    if (fiber.bulk_open || fiber.bulk_waited < fiber.bulk_closed)
        fail(fiber.bulk_site, "a thread exits before it has waited for its bulk stores");
}

int32_t encode_tensor_map(void* out, void* base, uint32_t element_bytes, uint64_t rows, uint64_t columns,
                            uint64_t row_bytes, uint32_t box_rows, uint32_t box_columns, uint32_t swizzle) {
    const uint64_t inner = uint64_t(box_columns) * element_bytes;
    const bool known = swizzle == 0 || swizzle == 32 || swizzle == 64 || swizzle == 128;
    const bool elements = element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8;
    const bool matrix = rows && columns && !(rows >> 32) && !(columns >> 32) && !(row_bytes >> 40);
    const bool box = box_rows && box_rows <= 256 && box_columns && box_columns <= 256;
    const bool aligned = uintptr_t(out) % 8 == 0 && uintptr_t(base) % 16 == 0 && row_bytes % 16 == 0 && inner % 16 == 0;
    if (!known || !elements || !matrix || !box || !aligned || (swizzle && inner > swizzle)) return -1;
    const TensorMap map{TensorMap::kMark, static_cast<char*>(base), rows, columns, row_bytes,
                                  box_rows, box_columns, element_bytes, swizzle};
    memset(out, 0, 128);
    memcpy(out, &map, sizeof map);
    return 0;
}

}  // namespace emulator
