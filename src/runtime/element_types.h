// The element types as templates see them: how a number is kept in memory, and in which type it is added.
//
// Every NaN is stored as the one quiet NaN of its type (base/half.h), because which payload survives an addition differs between
// processors and must not show in a result.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/half.h"
#include "poseidon/types.h"

namespace poseidon::runtime {

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

// The number with this index in an array that needs no alignment: memcpy becomes a load or a store.
template <typename Number>
typename Number::Added load(const std::byte* array, std::size_t index) {
  typename Number::Stored bits;
  std::memcpy(&bits, array + index * sizeof(bits), sizeof(bits));
  return Number::load(bits);
}
template <typename Number>
void store(typename Number::Added value, std::byte* array, std::size_t index) {
  const typename Number::Stored bits = Number::store(value);
  std::memcpy(array + index * sizeof(bits), &bits, sizeof(bits));
}

// Calls `of_type`, a templated lambda, with the element type as its template argument.
template <typename OfType>
void with_type(DType type, OfType of_type) {
  switch (type) {
    case DType::kFloat32:
      return of_type.template operator()<Float32>();
    case DType::kFloat64:
      return of_type.template operator()<Float64>();
    case DType::kBFloat16:
      return of_type.template operator()<BFloat16>();
    case DType::kFloat16:
      return of_type.template operator()<Float16>();
  }
  POSEIDON_CHECK(false, "an unknown element type ", static_cast<int>(type));
}

}  // namespace poseidon::runtime
