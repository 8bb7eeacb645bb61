/* Made by tools/bindings from svd/params.h: the layout that Rust has. */
#pragma once
#include <stddef.h>

static_assert(sizeof(GramParams) == 80, "Size of GramParams");
static_assert(alignof(GramParams) == 8, "Alignment of GramParams");
static_assert(offsetof(GramParams, a) == 0, "Offset of field: GramParams::a");
static_assert(offsetof(GramParams, state) == 8, "Offset of field: GramParams::state");
static_assert(offsetof(GramParams, rank) == 16, "Offset of field: GramParams::rank");
static_assert(offsetof(GramParams, partials) == 24, "Offset of field: GramParams::partials");
static_assert(offsetof(GramParams, row_stride) == 32, "Offset of field: GramParams::row_stride");
static_assert(offsetof(GramParams, column_stride) == 40, "Offset of field: GramParams::column_stride");
static_assert(offsetof(GramParams, inner_stride) == 48, "Offset of field: GramParams::inner_stride");
static_assert(offsetof(GramParams, outer_stride) == 56, "Offset of field: GramParams::outer_stride");
static_assert(offsetof(GramParams, inner) == 64, "Offset of field: GramParams::inner");
static_assert(offsetof(GramParams, rows) == 68, "Offset of field: GramParams::rows");
static_assert(offsetof(GramParams, columns) == 72, "Offset of field: GramParams::columns");
static_assert(offsetof(GramParams, wanted) == 76, "Offset of field: GramParams::wanted");
static_assert(sizeof(FactorParams) == 176, "Size of FactorParams");
static_assert(alignof(FactorParams) == 8, "Alignment of FactorParams");
static_assert(offsetof(FactorParams, a) == 0, "Offset of field: FactorParams::a");
static_assert(offsetof(FactorParams, tall) == 8, "Offset of field: FactorParams::tall");
static_assert(offsetof(FactorParams, s) == 16, "Offset of field: FactorParams::s");
static_assert(offsetof(FactorParams, small) == 24, "Offset of field: FactorParams::small");
static_assert(offsetof(FactorParams, partials) == 32, "Offset of field: FactorParams::partials");
static_assert(offsetof(FactorParams, vectors) == 40, "Offset of field: FactorParams::vectors");
static_assert(offsetof(FactorParams, basis) == 48, "Offset of field: FactorParams::basis");
static_assert(offsetof(FactorParams, values) == 56, "Offset of field: FactorParams::values");
static_assert(offsetof(FactorParams, energy) == 64, "Offset of field: FactorParams::energy");
static_assert(offsetof(FactorParams, mix) == 72, "Offset of field: FactorParams::mix");
static_assert(offsetof(FactorParams, tail) == 80, "Offset of field: FactorParams::tail");
static_assert(offsetof(FactorParams, state) == 88, "Offset of field: FactorParams::state");
static_assert(offsetof(FactorParams, rank) == 96, "Offset of field: FactorParams::rank");
static_assert(offsetof(FactorParams, row_stride) == 104, "Offset of field: FactorParams::row_stride");
static_assert(offsetof(FactorParams, column_stride) == 112, "Offset of field: FactorParams::column_stride");
static_assert(offsetof(FactorParams, inner_stride) == 120, "Offset of field: FactorParams::inner_stride");
static_assert(offsetof(FactorParams, outer_stride) == 128, "Offset of field: FactorParams::outer_stride");
static_assert(offsetof(FactorParams, relative) == 136, "Offset of field: FactorParams::relative");
static_assert(offsetof(FactorParams, inner) == 144, "Offset of field: FactorParams::inner");
static_assert(offsetof(FactorParams, rows) == 148, "Offset of field: FactorParams::rows");
static_assert(offsetof(FactorParams, width) == 152, "Offset of field: FactorParams::width");
static_assert(offsetof(FactorParams, columns) == 156, "Offset of field: FactorParams::columns");
static_assert(offsetof(FactorParams, chunks) == 160, "Offset of field: FactorParams::chunks");
static_assert(offsetof(FactorParams, rung) == 164, "Offset of field: FactorParams::rung");
static_assert(offsetof(FactorParams, first) == 168, "Offset of field: FactorParams::first");
static_assert(offsetof(FactorParams, wide) == 172, "Offset of field: FactorParams::wide");
