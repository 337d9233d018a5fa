#include "runtime/sum_kernels.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "runtime/element_types.h"

namespace poseidon::runtime {
namespace {

// Sums in blocks that stay in the first-level cache, so each addend is read once and the result written once, whatever the
// number of addends. The inner loops are plain, for the compiler to vectorise as it can.
template <typename Number>
void sum_plain(const SumArrays& arrays) {
  constexpr std::size_t kBlock = 1024;
  constexpr std::size_t kWidth = sizeof(typename Number::Stored);
  typename Number::Added sum[kBlock];
  for (std::size_t begin = 0; begin < arrays.elements; begin += kBlock) {
    const std::size_t count = std::min(kBlock, arrays.elements - begin);
    const std::size_t offset = begin * kWidth;
    const std::byte* const first = arrays.addends[0] + offset;
    for (std::size_t i = 0; i < count; ++i) sum[i] = load<Number>(first, i);
    for (std::size_t k = 1; k < arrays.addends.size(); ++k) {
      const std::byte* const addend = arrays.addends[k] + offset;
      for (std::size_t i = 0; i < count; ++i) sum[i] += load<Number>(addend, i);
    }
    std::byte* const out = arrays.out + offset;
    for (std::size_t i = 0; i < count; ++i) store<Number>(sum[i], out, i);
    if (arrays.copy == nullptr) continue;
    std::byte* const copy = arrays.copy + offset;
    for (std::size_t i = 0; i < count; ++i) store<Number>(sum[i], copy, i);
  }
}

template <typename From, typename To>
void convert_plain(const std::byte* from, std::size_t elements, std::byte* to) {
  for (std::size_t i = 0; i < elements; ++i) store<To>(load<From>(from, i), to, i);
}

}  // namespace

SumKernel SumKernels::of(DType dtype) const {
  switch (dtype) {
    case DType::kFloat32:
      return float32;
    case DType::kFloat64:
      return float64;
    case DType::kBFloat16:
      return bfloat16;
    case DType::kFloat16:
      return float16;
  }
  POSEIDON_CHECK(false, "a sum of type ", static_cast<int>(dtype));
  return nullptr;
}

ConvertKernel SumKernels::narrow_to(DType dtype) const {
  POSEIDON_CHECK(bytes_of(dtype) == 2, to_string(dtype), " is not narrow");
  return dtype == DType::kBFloat16 ? to_bfloat16 : to_float16;
}

ConvertKernel SumKernels::widen_from(DType dtype) const {
  POSEIDON_CHECK(bytes_of(dtype) == 2, to_string(dtype), " is not narrow");
  return dtype == DType::kBFloat16 ? from_bfloat16 : from_float16;
}

std::span<const SumKernels> sum_kernels_here() {
  static const std::vector<SumKernels> all = [] {
    std::vector<SumKernels> list = {
        {"plain", sum_plain<Float32>, sum_plain<Float64>, sum_plain<BFloat16>, sum_plain<Float16>, convert_plain<Float32, BFloat16>,
         convert_plain<Float32, Float16>, convert_plain<BFloat16, Float32>, convert_plain<Float16, Float32>}};
    const std::span<const SumKernels> special = special_sum_kernels_here();
    list.insert(list.end(), special.begin(), special.end());
    return list;
  }();
  return all;
}

}  // namespace poseidon::runtime
