/* Made by tools/bindings from svd/params.h: the layout that Rust has. */
#pragma once
#include <stddef.h>

<<<<<<< HEAD
static_assert(sizeof(GramParams) == 88, "Size of GramParams");
=======
static_assert(sizeof(GramParams) == 80, "Size of GramParams");
>>>>>>> main
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
<<<<<<< HEAD
static_assert(offsetof(GramParams, first) == 68, "Offset of field: GramParams::first");
static_assert(offsetof(GramParams, rows) == 72, "Offset of field: GramParams::rows");
static_assert(offsetof(GramParams, columns) == 76, "Offset of field: GramParams::columns");
static_assert(offsetof(GramParams, wanted) == 80, "Offset of field: GramParams::wanted");
static_assert(offsetof(GramParams, pad) == 84, "Offset of field: GramParams::pad");
static_assert(sizeof(SvdParams) == 184, "Size of SvdParams");
static_assert(alignof(SvdParams) == 8, "Alignment of SvdParams");
static_assert(offsetof(SvdParams, a) == 0, "Offset of field: SvdParams::a");
static_assert(offsetof(SvdParams, tall) == 8, "Offset of field: SvdParams::tall");
static_assert(offsetof(SvdParams, s) == 16, "Offset of field: SvdParams::s");
static_assert(offsetof(SvdParams, small) == 24, "Offset of field: SvdParams::small");
static_assert(offsetof(SvdParams, partials) == 32, "Offset of field: SvdParams::partials");
static_assert(offsetof(SvdParams, vectors) == 40, "Offset of field: SvdParams::vectors");
static_assert(offsetof(SvdParams, basis) == 48, "Offset of field: SvdParams::basis");
static_assert(offsetof(SvdParams, values) == 56, "Offset of field: SvdParams::values");
static_assert(offsetof(SvdParams, energy) == 64, "Offset of field: SvdParams::energy");
static_assert(offsetof(SvdParams, mix) == 72, "Offset of field: SvdParams::mix");
static_assert(offsetof(SvdParams, tail) == 80, "Offset of field: SvdParams::tail");
static_assert(offsetof(SvdParams, state) == 88, "Offset of field: SvdParams::state");
static_assert(offsetof(SvdParams, rank) == 96, "Offset of field: SvdParams::rank");
static_assert(offsetof(SvdParams, row_stride) == 104, "Offset of field: SvdParams::row_stride");
static_assert(offsetof(SvdParams, column_stride) == 112, "Offset of field: SvdParams::column_stride");
static_assert(offsetof(SvdParams, inner_stride) == 120, "Offset of field: SvdParams::inner_stride");
static_assert(offsetof(SvdParams, outer_stride) == 128, "Offset of field: SvdParams::outer_stride");
static_assert(offsetof(SvdParams, relative) == 136, "Offset of field: SvdParams::relative");
static_assert(offsetof(SvdParams, inner) == 144, "Offset of field: SvdParams::inner");
static_assert(offsetof(SvdParams, first) == 148, "Offset of field: SvdParams::first");
static_assert(offsetof(SvdParams, rows) == 152, "Offset of field: SvdParams::rows");
static_assert(offsetof(SvdParams, width) == 156, "Offset of field: SvdParams::width");
static_assert(offsetof(SvdParams, columns) == 160, "Offset of field: SvdParams::columns");
static_assert(offsetof(SvdParams, chunks) == 164, "Offset of field: SvdParams::chunks");
static_assert(offsetof(SvdParams, rung) == 168, "Offset of field: SvdParams::rung");
static_assert(offsetof(SvdParams, fresh) == 172, "Offset of field: SvdParams::fresh");
static_assert(offsetof(SvdParams, wide) == 176, "Offset of field: SvdParams::wide");
static_assert(offsetof(SvdParams, pad) == 180, "Offset of field: SvdParams::pad");
=======
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
>>>>>>> main
