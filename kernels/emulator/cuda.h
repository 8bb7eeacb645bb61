// The CUDA device language for a host compiler. Included ahead of every kernel source (-include).
#pragma once
#define LOWKEY_EMULATED 1

#include "language.h"
#include "collectives.h"
#include "atomics.h"
#include "intrinsics.h"
