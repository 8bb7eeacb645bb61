/* Made by tools/bindings from linear/params.h: the layout that Rust has. */
#pragma once
#include <stddef.h>

static_assert(sizeof(FactorParams) == 48, "Size of FactorParams");
static_assert(alignof(FactorParams) == 8, "Alignment of FactorParams");
static_assert(offsetof(FactorParams, x) == 0, "Offset of field: FactorParams::x");
static_assert(offsetof(FactorParams, weight) == 8, "Offset of field: FactorParams::weight");
static_assert(offsetof(FactorParams, bias) == 16, "Offset of field: FactorParams::bias");
static_assert(offsetof(FactorParams, y) == 24, "Offset of field: FactorParams::y");
static_assert(offsetof(FactorParams, rows) == 32, "Offset of field: FactorParams::rows");
static_assert(offsetof(FactorParams, n) == 36, "Offset of field: FactorParams::n");
static_assert(offsetof(FactorParams, k) == 40, "Offset of field: FactorParams::k");
static_assert(offsetof(FactorParams, unused) == 44, "Offset of field: FactorParams::unused");
