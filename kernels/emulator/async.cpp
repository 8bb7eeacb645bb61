// Asynchronous operations: done at once or as late as the schedule likes, both of which a GPU may do.
#include <cstring>

#include "checker.h"
#include "worker.h"

namespace emulator {
namespace {

void finish(const PendingCopy& copy) {
    memcpy(copy.to, copy.from, size_t(copy.source_bytes));
    memset(copy.to + copy.source_bytes, 0, size_t(copy.bytes - copy.source_bytes));
}

}  // namespace

void finish_copies(Fiber& fiber, size_t count) {
    auto& copies = fiber.copies.copies;
    for (size_t i = 0; i < count; i++) finish(copies[i]);
    copies.erase(copies.begin(), copies.begin() + long(count));
}

void cp_async(void* shared, const void* global, int bytes, int source_bytes, Site site) {
    Worker& w = *worker;
    enter("cp.async", site);
    check_shared(shared, size_t(bytes), size_t(bytes), "cp.async destination", site);
    if (source_bytes) check_global(global, size_t(source_bytes), size_t(bytes), "cp.async source", site);
    w.stats.cp_async++;
    checker::access(w, shared, size_t(bytes), true, checker::Kind::CopyAsync, site);
    if (source_bytes) checker::access(w, global, size_t(source_bytes), false, checker::Kind::CopyAsync, site);
    const PendingCopy copy{static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), bytes,
                           source_bytes};
    if (toss(2)) w.current->copies.copies.push_back(copy);
    else finish(copy);
}

void cp_async_commit(Site) {
    CopyGroups& groups = worker->current->copies;
    groups.ends.push_back(groups.copies.size());
    checker::commit_copies(*worker);
}

void cp_async_wait(int newest_left, Site site) {
    if (site_skipped(site, "cp.async wait")) return;
    checker::wait_copies(*worker, size_t(newest_left));
    Fiber& fiber = *worker->current;
    auto& ends = fiber.copies.ends;
    if (ends.size() <= size_t(newest_left)) return;
    const size_t groups = ends.size() - size_t(newest_left), copies = ends[groups - 1];
    finish_copies(fiber, copies);
    ends.erase(ends.begin(), ends.begin() + long(groups));
    for (size_t& end : ends) end -= copies;
}

void issue_async(void (*run)(const void*), const void* payload, size_t bytes) {
    if (!toss(2)) {
        run(payload);
        if (worker->failed) abandon_thread();
        return;
    }
    AsyncOperation operation{run, {}};
    memcpy(operation.payload, payload, bytes);
    worker->async.push_back(operation);
}

void run_one_async(Worker& w) {
    const size_t i = w.policy >= Policy::RandomWarp ? w.random.below(unsigned(w.async.size())) : 0;
    const AsyncOperation operation = w.async[i];
    w.async.erase(w.async.begin() + long(i));
    operation.run(operation.payload);
}

}  // namespace emulator
