// Switching between stacks: a few instructions on x86-64, ucontext elsewhere.
#pragma once
#include <cstddef>

#if defined(__x86_64__)
#define EMULATOR_ASM_SWITCH 1
#else
#include <ucontext.h>
#endif

#pragma GCC visibility push(hidden)
namespace emulator {

#if EMULATOR_ASM_SWITCH
struct Context {
    void* stack_pointer = nullptr;
};
extern "C" void emulator_switch(void** save, void* to);
inline void switch_context(Context& from, Context& to) {
    emulator_switch(&from.stack_pointer, to.stack_pointer);
}
#else
struct Context {
    ucontext_t state;
};
inline void switch_context(Context& from, Context& to) {
    swapcontext(&from.state, &to.state);
}
#endif

// Makes a context that starts in `entry` on the given stack; `entry` never returns.
void make_context(Context& context, char* stack, size_t bytes, void (*entry)());

}  // namespace emulator
#pragma GCC visibility pop
