#include "runtime/sum_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/half.h"

namespace poseidon::runtime {
namespace {

// How one type of number is kept in memory, and in which it is added.
struct Float32 {
  using Stored = std::uint32_t;
  using Added = float;
  static float load(std::uint32_t bits) { return std::bit_cast<float>(bits); }
  static std::uint32_t store(float value) { return value != value ? base::kFloat32NaN : std::bit_cast<std::uint32_t>(value); }
};

struct Float64 {
  using Stored = std::uint64_t;
  using Added = double;
  static double load(std::uint64_t bits) { return std::bit_cast<double>(bits); }
  static std::uint64_t store(double value) { return value != value ? base::kFloat64NaN : std::bit_cast<std::uint64_t>(value); }
};

struct BFloat16 {
  using Stored = std::uint16_t;
  using Added = float;
  static float load(std::uint16_t bits) { return base::from_bfloat16(bits); }
  static std::uint16_t store(float value) { return base::to_bfloat16(value); }
};

struct Float16 {
  using Stored = std::uint16_t;
  using Added = float;
  static float load(std::uint16_t bits) { return base::from_float16(bits); }
  static std::uint16_t store(float value) { return base::to_float16(value); }
};

// Memory without alignment is read and written by memcpy, which becomes a load or a store.
template <typename Number>
typename Number::Added load(const std::byte* at) {
  typename Number::Stored bits;
  std::memcpy(&bits, at, sizeof(bits));
  return Number::load(bits);
}

template <typename Number>
void store(const typename Number::Added* sum, std::size_t count, std::byte* to) {
  for (std::size_t i = 0; i < count; ++i) {
    const typename Number::Stored bits = Number::store(sum[i]);
    std::memcpy(to + i * sizeof(bits), &bits, sizeof(bits));
  }
}

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
    for (std::size_t i = 0; i < count; ++i) sum[i] = load<Number>(first + i * kWidth);
    for (std::size_t k = 1; k < arrays.addends.size(); ++k) {
      const std::byte* const addend = arrays.addends[k] + offset;
      for (std::size_t i = 0; i < count; ++i) sum[i] += load<Number>(addend + i * kWidth);
    }
    store<Number>(sum, count, arrays.out + offset);
    if (arrays.copy != nullptr) store<Number>(sum, count, arrays.copy + offset);
  }
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

std::span<const SumKernels> sum_kernels_here() {
  static const std::vector<SumKernels> all = [] {
    std::vector<SumKernels> list = {
        {"plain", sum_plain<Float32>, sum_plain<Float64>, sum_plain<BFloat16>, sum_plain<Float16>}};
    const std::span<const SumKernels> special = special_sum_kernels_here();
    list.insert(list.end(), special.begin(), special.end());
    return list;
  }();
  return all;
}

}  // namespace poseidon::runtime
