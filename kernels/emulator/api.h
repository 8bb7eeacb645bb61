/* What a host program sees of the emulator: one table of functions, plain C. */
#pragma once
#include <stdint.h>

#define LK_ABI 3

#ifdef __cplusplus
extern "C" {
#endif

struct LkKernelInfo {
    const char* name;
    const char* file; /* as given to the compiler */
    uint32_t line;
    uint32_t params_bytes;
    uint32_t max_threads; /* of a block */
    uint32_t reserved;
};

/* Counted over a whole launch. */
struct LkStats {
    uint64_t mma;            /* warp-wide m16n8k16 products or their equivalent */
    uint64_t ldmatrix;       /* warp-wide loads */
    uint64_t bank_conflicts; /* of ldmatrix: rows beyond the first in the same banks */
    uint64_t shuffles;       /* warp-wide shuffles, votes and reductions */
    uint64_t barriers;       /* arrivals at block barriers */
    uint64_t cp_async;       /* 16-byte copies */
    uint64_t bulk_bytes;     /* moved by bulk and tensor copies */
    uint64_t switches;       /* of fibers */
};

/* A place that orders threads or memory, seen by a launch with `trace`. The strings live as long as the library. */
struct LkSite {
    const char* file;
    const char* kind;
    uint32_t line;
    uint32_t reserved;
};

struct LkLaunch {
    const char* kernel;
    uint32_t grid[3];
    uint32_t block[3];
    uint64_t shared_bytes; /* dynamic shared memory */
    const void* params;
    uint64_t params_bytes;
    uint64_t schedule;     /* 0 ascending, 1 descending, otherwise the seed of a random schedule */
    uint32_t os_threads;   /* blocks are spread over them; 0 counts as 1; a checked build uses one */
    uint32_t arch;         /* 80, 90, 100 or 120 */
    const char* skip_file; /* the site at this file's end and line does nothing; null for none */
    uint32_t skip_line;
    uint32_t trace;        /* nonzero: remember sites */
    struct LkStats* stats; /* may be null */
    char* error;           /* receives text when the launch fails; may be null */
    uint64_t error_bytes;
};

struct LkApi {
    uint32_t abi; /* LK_ABI */
    uint32_t reserved;
    uint32_t (*kernel_count)(void);
    /* 0, or -1 when there is no such kernel. */
    int32_t (*kernel)(uint32_t index, struct LkKernelInfo* info);
    /* 0; 1 when the kernel broke a rule; 2 when nothing was run; then there is text in `error`. */
    int32_t (*launch)(const struct LkLaunch* launch);
    /* A buffer that ends at a guard page and is filled with 0xFF; null when there is no memory. */
    void* (*alloc)(uint64_t bytes);
    /* 0, or -1: no such buffer, or bytes around it were written. It is freed all the same. */
    int32_t (*free)(void* pointer);
    /* Whether kernels were compiled with the instrumentation that the race checker needs. */
    int32_t (*checked)(void);
    /* Number of sites seen since reset_sites; the first `capacity` of them are written to `out`. */
    uint64_t (*sites)(struct LkSite* out, uint64_t capacity);
    void (*reset_sites)(void);
    /* Gives back what is kept between launches. */
    void (*trim)(void);
    /* Fills 128 bytes with the map of a matrix [rows, columns] for tma_load_2d and tma_store_2d, whose tiles are
       [box_rows, box_columns]; swizzle is 0, 32, 64 or 128 bytes. 0, or -1 when a GPU would refuse it. */
    int32_t (*tensor_map)(void* out, void* base, uint32_t element_bytes, uint64_t rows, uint64_t columns,
                          uint64_t row_bytes, uint32_t box_rows, uint32_t box_columns, uint32_t swizzle);
};

__attribute__((visibility("default"))) const struct LkApi* lowkey_emulator(void);

#ifdef __cplusplus
}
#endif
