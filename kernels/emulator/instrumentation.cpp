// Entry points that compilers call from instrumented kernels: -fsanitize=thread tells every access to memory,
// -fsanitize=undefined what has gone wrong. Nothing of the sanitizers' own libraries is linked.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "checker.h"

#define ENTRY extern "C" __attribute__((visibility("hidden")))

namespace emulator {
namespace {

inline void touch(const void* address, size_t bytes, bool write, bool aligned, const void* return_address) {
    Worker* w = worker;
    if (!w || !w->checker || !w->current) return;
    const Fiber& fiber = *w->current;
    if (address >= fiber.stack && address < fiber.stack + kStackBytes) {
        for (const HiddenRegisters& hidden : fiber.hidden)
            if (address >= hidden.begin && address < hidden.end)
                fail_at(uintptr_t(return_address) - 1, "accumulator touched before wgmma.wait");
        return;
    }
    checker::access_at(*w, address, bytes, write, aligned, uintptr_t(return_address) - 1);
}

}  // namespace
}  // namespace emulator

#define ACCESS(name, bytes, write, aligned)                                                           \
    ENTRY void __tsan_##name(void* address) {                                                         \
        emulator::touch(address, bytes, write, aligned, __builtin_return_address(0));                 \
    }
#define ACCESSES(bytes)                             \
    ACCESS(read##bytes, bytes, false, true)         \
    ACCESS(write##bytes, bytes, true, true)         \
    ACCESS(unaligned_read##bytes, bytes, false, false) \
    ACCESS(unaligned_write##bytes, bytes, true, false) \
    ACCESS(volatile_read##bytes, bytes, false, true) \
    ACCESS(volatile_write##bytes, bytes, true, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

ENTRY void __tsan_read_range(void* address, size_t bytes) {
    emulator::touch(address, bytes, false, false, __builtin_return_address(0));
}
ENTRY void __tsan_write_range(void* address, size_t bytes) {
    emulator::touch(address, bytes, true, false, __builtin_return_address(0));
}
// Clang alone tells these.
ENTRY void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    emulator::touch(from, bytes, false, false, __builtin_return_address(0));
    emulator::touch(to, bytes, true, false, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}
ENTRY void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    emulator::touch(from, bytes, false, false, __builtin_return_address(0));
    emulator::touch(to, bytes, true, false, __builtin_return_address(0));
    return memmove(to, from, bytes);
}
ENTRY void* __tsan_memset(void* to, int value, size_t bytes) {
    emulator::touch(to, bytes, true, false, __builtin_return_address(0));
    return memset(to, value, bytes);
}
ENTRY void __tsan_init() {}
ENTRY void __tsan_func_entry(void*) {}
ENTRY void __tsan_func_exit() {}
ENTRY void __tsan_vptr_update(void**, void*) {}
ENTRY void __tsan_vptr_read(void**) {}

#if !EMULATOR_ASAN
namespace {

struct SourceLocation {
    const char* file;
    uint32_t line, column;
};

[[noreturn]] void undefined(const void* data, const char* what) {
    const auto* place = static_cast<const SourceLocation*>(data);
    const emulator::Site site{place->file, int(place->line)};
    if (emulator::worker && emulator::worker->current) emulator::fail(site, "undefined behaviour: %s", what);
    fprintf(stderr, "%s:%d: undefined behaviour: %s\n", site.file, site.line, what);
    abort();
}

// What follows the location for an access through a pointer.
struct TypeMismatch {
    SourceLocation place;
    const void* type;
    unsigned char log_alignment, access;
};

[[noreturn]] void type_mismatch(const void* data, uintptr_t pointer) {
    const auto* mismatch = static_cast<const TypeMismatch*>(data);
    const uintptr_t alignment = uintptr_t(1) << mismatch->log_alignment;
    if (!pointer) undefined(data, "null pointer");
    undefined(data, pointer % alignment ? "misaligned access" : "access to an object too small");
}

}  // namespace

#define UNDEFINED(name, what)                             \
    ENTRY void __ubsan_handle_##name(void* data) {        \
        undefined(data, what);                            \
    }
#define UNDEFINED_OR_ABORT(name, what) \
    UNDEFINED(name, what)              \
    UNDEFINED(name##_abort, what)
ENTRY void __ubsan_handle_type_mismatch_v1(void* data, uintptr_t pointer) {
    type_mismatch(data, pointer);
}
ENTRY void __ubsan_handle_type_mismatch_v1_abort(void* data, uintptr_t pointer) {
    type_mismatch(data, pointer);
}
UNDEFINED_OR_ABORT(add_overflow, "signed overflow of a sum")
UNDEFINED_OR_ABORT(sub_overflow, "signed overflow of a difference")
UNDEFINED_OR_ABORT(mul_overflow, "signed overflow of a product")
UNDEFINED_OR_ABORT(negate_overflow, "signed overflow of a negation")
UNDEFINED_OR_ABORT(divrem_overflow, "division by zero, or overflow of a quotient")
UNDEFINED_OR_ABORT(shift_out_of_bounds, "shift by more than the width, or of a negative value")
UNDEFINED_OR_ABORT(out_of_bounds, "index out of bounds of an array")
UNDEFINED_OR_ABORT(pointer_overflow, "overflow of a pointer")
UNDEFINED_OR_ABORT(vla_bound_not_positive, "array of no elements")
UNDEFINED_OR_ABORT(load_invalid_value, "value that the type does not have")
UNDEFINED_OR_ABORT(nonnull_arg, "null argument")
UNDEFINED_OR_ABORT(invalid_builtin, "zero given to a count of zero bits")
UNDEFINED_OR_ABORT(float_cast_overflow, "conversion of a float that does not fit")
UNDEFINED(builtin_unreachable, "unreachable code reached")
UNDEFINED(missing_return, "no value returned")
#endif
