/* Made by tools/bindings from nn/params.h: the layout that Rust has. */
#pragma once
#include <stddef.h>

static_assert(sizeof(AddParams) == 24, "Size of AddParams");
static_assert(alignof(AddParams) == 8, "Alignment of AddParams");
static_assert(offsetof(AddParams, x) == 0, "Offset of field: AddParams::x");
static_assert(offsetof(AddParams, y) == 8, "Offset of field: AddParams::y");
static_assert(offsetof(AddParams, count) == 16, "Offset of field: AddParams::count");
