// An assertion that fails in a kernel ends the launch, not the process. Found ahead of the C library's.
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) ((condition) ? (void)0 : emulator::fail(emulator::here(), "assertion failed: %s", #condition))
#endif
