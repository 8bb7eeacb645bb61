/* Made by tools/bindings from bench/params.h: the layout that Rust has. */
#pragma once
#include <stddef.h>

static_assert(sizeof(ReadParams) == 24, "Size of ReadParams");
static_assert(alignof(ReadParams) == 8, "Alignment of ReadParams");
static_assert(offsetof(ReadParams, data) == 0, "Offset of field: ReadParams::data");
static_assert(offsetof(ReadParams, sums) == 8, "Offset of field: ReadParams::sums");
static_assert(offsetof(ReadParams, count) == 16, "Offset of field: ReadParams::count");
static_assert(sizeof(MultiplyParams) == 16, "Size of MultiplyParams");
static_assert(alignof(MultiplyParams) == 8, "Alignment of MultiplyParams");
static_assert(offsetof(MultiplyParams, sums) == 0, "Offset of field: MultiplyParams::sums");
static_assert(offsetof(MultiplyParams, steps) == 8, "Offset of field: MultiplyParams::steps");
static_assert(offsetof(MultiplyParams, pair) == 12, "Offset of field: MultiplyParams::pair");
