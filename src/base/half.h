// The two types of 16 bits, one number at a time: what a bfloat16 or float16 is worth, and which one a float32 rounds to.
//
// The reference for what the vectorised sums (runtime/sum_kernels.h) do with many. A number is rounded to the nearest, a tie to
// the one with an even last bit; what is too large becomes infinite, what is too small a subnormal or zero of its sign. Every
// NaN becomes the same quiet one, because which payload survives differs between processors and must not show in a sum.
//
// Assumes the default floating-point environment: rounding to nearest, subnormals not flushed.
#pragma once

#include <bit>
#include <cstdint>

namespace poseidon::base {

constexpr std::uint16_t kBFloat16NaN = 0x7FC0;
constexpr std::uint16_t kFloat16NaN = 0x7E00;
constexpr std::uint32_t kFloat32NaN = 0x7FC00000;
constexpr std::uint64_t kFloat64NaN = 0x7FF8000000000000;

// A bfloat16 is the upper half of a float32.
constexpr float from_bfloat16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

constexpr std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  // Half of the last place that stays, less one, and one more where that place is odd: a tie then carries only into odd ones.
  const std::uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  return value != value ? kBFloat16NaN : static_cast<std::uint16_t>(rounded >> 16);
}

constexpr float from_float16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t shifted = static_cast<std::uint32_t>(bits & 0x7FFF) << 13;  // exponent and fraction in float32's places
  const std::uint32_t exponent = shifted & 0x0F800000;
  const std::uint32_t rebiased = shifted + ((127 - 15) << 23);
  // Infinities and NaNs keep an exponent of all ones.
  const std::uint32_t special = rebiased + ((128 - 16) << 23);
  // A subnormal has no leading one: lend it one, and take it back as a number, which normalises it.
  const float subnormal = std::bit_cast<float>(rebiased + (1 << 23)) - std::bit_cast<float>(std::uint32_t{113 << 23});
  const std::uint32_t magnitude =
      exponent == 0x0F800000 ? special : exponent == 0 ? std::bit_cast<std::uint32_t>(subnormal) : rebiased;
  return std::bit_cast<float>(magnitude | sign);
}

constexpr std::uint16_t to_float16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  const std::uint16_t sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000);
  // As in to_bfloat16, with 13 bits to drop; 65520 and more carry into the exponent of infinity by themselves.
  const std::uint32_t normal = (magnitude + 0xFFF + ((magnitude >> 13) & 1) - ((127 - 15) << 23)) >> 13;
  // Below 2^-14 the last place is 2^-24, which is also that of 0.5 in float32: the addition rounds.
  const float half_up = std::bit_cast<float>(magnitude < 0x38800000 ? magnitude : 0) + 0.5f;
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(half_up) - 0x3F000000;
  std::uint32_t result = magnitude < 0x38800000 ? subnormal : normal;
  if (magnitude >= 0x47800000) result = 0x7C00;  // 65536 and more
  return value != value ? kFloat16NaN : static_cast<std::uint16_t>(result | sign);
}

}  // namespace poseidon::base
