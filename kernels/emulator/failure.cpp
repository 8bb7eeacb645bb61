// How a kernel's fault becomes text: who, where, what.
#include <signal.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "sanitizers.h"
#include "worker.h"

namespace emulator {
namespace {

constexpr size_t kAlternateStackBytes = 256 << 10;

#if EMULATOR_ASAN
// AddressSanitizer ends the process; this line follows its report.
void tell_thread(const char*) {
    const Worker* w = worker;
    if (!w || !w->current) return;
    fprintf(stderr, "kernel %s, %s\n", w->launch->kernel->name, describe_thread(*w, w->current).c_str());
}
#else
std::string what_is_there(const Worker& w, const void* address) {
    const auto* a = static_cast<const unsigned char*>(address);
    char text[160];
    if (w.shared.contains_map(a)) {
        snprintf(text, sizeof text, "out of bounds: shared memory at offset %td of %zu bytes", a - w.shared.begin(),
                 w.shared.bytes());
        return text;
    }
    for (const Buffer& buffer : w.launch->buffers) {
        if (address < buffer.map || address >= buffer.map + buffer.map_bytes) continue;
        snprintf(text, sizeof text, "out of bounds: offset %td of a buffer of %zu bytes",
                 static_cast<const char*>(address) - buffer.data, buffer.bytes);
        return text;
    }
    const char* stack = w.current->stack;
    if (address < stack && address >= stack - 4096) return "stack overflow of a thread";
    snprintf(text, sizeof text, "invalid access to %p, which is in no buffer", address);
    return text;
}

struct sigaction previous_action;

uintptr_t faulting_instruction([[maybe_unused]] const void* context) {
#if defined(__x86_64__)
    return uintptr_t(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#else
    return 0;
#endif
}

void on_fault(int signal_number, siginfo_t* info, void* context) {
    Worker* w = worker;
    if (w && w->current && w->current->state == State::Runnable) {
        // A general protection fault has no address: an aligned vector instruction on an address that is not.
        const bool protection = info->si_code == SI_KERNEL && !info->si_addr;
        fail_at(faulting_instruction(context),
                protection ? "misaligned vector access, or a wild address" : what_is_there(*w, info->si_addr));
    }
    if (previous_action.sa_flags & SA_SIGINFO) return previous_action.sa_sigaction(signal_number, info, context);
    if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN)
        return previous_action.sa_handler(signal_number);
    signal(signal_number, SIG_DFL);
}
#endif

}  // namespace

void catch_faults() {
#if EMULATOR_ASAN
    __asan_set_error_report_callback(tell_thread);
#else
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &previous_action);
    });
#endif
}

// A fault may be the overflow of the very stack that a handler would run on.
AlternateStack::AlternateStack() : memory(malloc(kAlternateStackBytes)), previous(new stack_t) {
    stack_t stack{};
    stack.ss_sp = memory;
    stack.ss_size = kAlternateStackBytes;
    sigaltstack(&stack, static_cast<stack_t*>(previous));
}

AlternateStack::~AlternateStack() {
    auto* before = static_cast<stack_t*>(previous);
    sigaltstack(before, nullptr);
    delete before;
    free(memory);
}

std::string describe_site(Site site) {
    if (!site.file) return "?";
    char text[512];
    snprintf(text, sizeof text, "%s:%d", site.file, site.line);
    return text;
}

std::string describe_thread(const Worker& w, const Fiber* fiber) {
    char text[128];
    const Index3 b = w.block;
    int n = snprintf(text, sizeof text, "block (%u,%u,%u)", b.x, b.y, b.z);
    if (fiber) {
        const Index3 t = fiber->thread;
        snprintf(text + n, sizeof text - size_t(n), " thread (%u,%u,%u)", t.x, t.y, t.z);
    }
    return text;
}

void record_failure(const std::string& text, Site site) {
    Worker& w = *worker;
    if (w.failed) return;
    w.failed = true;
    w.failure.text = describe_thread(w, w.current) + ": " + text;
    if (site.file) w.failure.text += " at " + describe_site(site);
    w.failure.places.clear();
}

void fail(Site site, const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    record_failure(text, site);
    abandon_thread();
}

void fail_at(uintptr_t address, const std::string& text) {
    Worker& w = *worker;
    const bool first = !w.failed;
    record_failure(text, Site{});
    if (first && address) w.failure.places.push_back({" at ", address});
    abandon_thread();
}

void check_shared(const void* address, size_t bytes, size_t alignment, const char* what, Site site) {
    const auto* a = static_cast<const unsigned char*>(address);
    const SharedArena& shared = worker->shared;
    if (a < shared.begin() || a + bytes > shared.begin() + shared.bytes())
        fail(site, "%s: out of bounds: shared memory at offset %td of %zu bytes", what, a - shared.begin(),
             shared.bytes());
    if (uintptr_t(a) % alignment)
        fail(site, "%s: misaligned: shared memory at offset %td, which is no multiple of %zu", what,
             a - shared.begin(), alignment);
}

const Buffer* buffer_of(const void* address) {
    const auto& buffers = worker->launch->buffers;
    const Buffer*& last = worker->last_buffer;
    const auto inside = [&](const Buffer& b) { return address >= b.map && address < b.map + b.map_bytes; };
    if (last && inside(*last)) return last;
    size_t low = 0, high = buffers.size();
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (buffers[middle].map + buffers[middle].map_bytes <= address) low = middle + 1;
        else high = middle;
    }
    if (low == buffers.size() || !inside(buffers[low])) return nullptr;
    return last = &buffers[low];
}

void check_global(const void* address, size_t bytes, size_t alignment, const char* what, Site site) {
    const Buffer* buffer = buffer_of(address);
    if (!buffer) fail(site, "%s: %p is in no buffer", what, address);
    const char* a = static_cast<const char*>(address);
    if (a < buffer->data || a + bytes > buffer->data + buffer->bytes)
        fail(site, "%s: out of bounds: offset %td of a buffer of %zu bytes", what, a - buffer->data, buffer->bytes);
    if (uintptr_t(a) % alignment) fail(site, "%s: misaligned: %p is no multiple of %zu", what, address, alignment);
}

}  // namespace emulator
