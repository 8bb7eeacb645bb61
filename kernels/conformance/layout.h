/* Made by tools/bindings from conformance/params.h: the layout that Rust has. */
#pragma once
#include <stddef.h>

static_assert(sizeof(ConformanceParams) == 40, "Size of ConformanceParams");
static_assert(alignof(ConformanceParams) == 8, "Alignment of ConformanceParams");
static_assert(offsetof(ConformanceParams, input) == 0, "Offset of field: ConformanceParams::input");
static_assert(offsetof(ConformanceParams, output) == 8, "Offset of field: ConformanceParams::output");
static_assert(offsetof(ConformanceParams, map) == 16, "Offset of field: ConformanceParams::map");
static_assert(offsetof(ConformanceParams, count) == 24, "Offset of field: ConformanceParams::count");
static_assert(offsetof(ConformanceParams, mode) == 28, "Offset of field: ConformanceParams::mode");
static_assert(offsetof(ConformanceParams, x) == 32, "Offset of field: ConformanceParams::x");
static_assert(offsetof(ConformanceParams, y) == 36, "Offset of field: ConformanceParams::y");
