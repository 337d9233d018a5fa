// The inner loops of a server's sums: k arrays of numbers added from left to right.
//
// There is one set of loops for each kind of processor, chosen when the program runs, and all sets give the same bits: the order
// of the additions is fixed, nothing is multiplied, so nothing can be fused, and every NaN in a result is the one quiet NaN of
// base/half.h. Numbers of 16 bits are added in float32 and rounded once, at the end: rounding after each addition would lose a
// small addend beside a large sum.
//
// Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "poseidon/types.h"

namespace poseidon::runtime {

// Arrays need no alignment. `out` and `copy` may each be one of the addends, but may not overlap one in part.
struct SumArrays {
  std::span<const std::byte* const> addends;  // at least one, each of `elements` numbers
  std::size_t elements = 0;
  std::byte* out = nullptr;
  std::byte* copy = nullptr;  // receives the same as `out`; may be null
};
using SumKernel = void (*)(const SumArrays& arrays);

struct SumKernels {
  std::string_view name;  // "plain", "avx2"
  SumKernel float32;
  SumKernel float64;
  SumKernel bfloat16;
  SumKernel float16;

  SumKernel of(DType dtype) const;
};

// What runs on this processor: the plain loops first, the best last.
std::span<const SumKernels> sum_kernels_here();

// For sum_kernels.cpp: the sets for this family of processors that this one can run, the best last. Chosen in CMake:
// sum_kernels_x86.cpp or sum_kernels_other.cpp.
std::span<const SumKernels> special_sum_kernels_here();

}  // namespace poseidon::runtime
