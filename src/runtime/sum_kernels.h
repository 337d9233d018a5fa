// The inner loops over arrays of numbers: a server's sums, k arrays added from left to right; and float32 made narrow for the wire
// and wide again.
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

// Writes as many numbers of another type: rounded to the nearest, a tie to the one with an even last bit; what is too large
// becomes infinite, every NaN the one quiet NaN. Arrays need no alignment and do not overlap.
using ConvertKernel = void (*)(const std::byte* from, std::size_t elements, std::byte* to);

struct SumKernels {
  std::string_view name;  // "plain", "avx2"
  SumKernel float32;
  SumKernel float64;
  SumKernel bfloat16;
  SumKernel float16;
  ConvertKernel to_bfloat16;  // from float32
  ConvertKernel to_float16;
  ConvertKernel from_bfloat16;  // to float32
  ConvertKernel from_float16;

  SumKernel of(DType dtype) const;
  // For a type of 16 bits.
  ConvertKernel narrow_to(DType dtype) const;
  ConvertKernel widen_from(DType dtype) const;
};

// What runs on this processor: the plain loops first, the best last.
std::span<const SumKernels> sum_kernels_here();

// For sum_kernels.cpp: the sets for this family of processors that this one can run, the best last. Chosen in CMake:
// sum_kernels_x86.cpp or sum_kernels_other.cpp.
std::span<const SumKernels> special_sum_kernels_here();

}  // namespace poseidon::runtime
