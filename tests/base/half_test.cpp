// The references are written from the definition of the types, in double precision and with no bit tricks.
#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace poseidon::base {
namespace {

struct Format {
  int fraction_bits;
  int exponent_bits;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  std::uint16_t infinity() const { return static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << fraction_bits); }
};
constexpr Format kBFloat16{7, 8};
constexpr Format kFloat16{10, 5};

bool is_nan(const Format& format, std::uint16_t bits) { return (bits & 0x7FFF) > format.infinity(); }

double value_of(const Format& format, std::uint16_t bits) {
  const int exponent = (bits & 0x7FFF) >> format.fraction_bits;
  const int fraction = bits & ((1 << format.fraction_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << format.exponent_bits) - 1) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  const int leading = exponent == 0 ? 0 : 1 << format.fraction_bits;
  return sign * std::ldexp(leading + fraction, std::max(exponent, 1) - format.bias() - format.fraction_bits);
}

// The nearest of the format's numbers, by counting in units of the last place; nearbyint takes ties to even.
std::uint16_t nearest(const Format& format, double value, std::uint16_t nan) {
  if (std::isnan(value)) return nan;
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isinf(value)) return static_cast<std::uint16_t>(sign | format.infinity());
  const int lowest = 1 - format.bias();
  const int exponent = magnitude == 0 ? lowest : std::max(std::ilogb(magnitude), lowest);
  // A fraction of all ones that is rounded up carries into the exponent, and in the end into infinity: the bits are in order.
  const double units = std::nearbyint(std::ldexp(magnitude, format.fraction_bits - exponent));
  const double bits = std::ldexp(exponent - lowest, format.fraction_bits) + units;
  return static_cast<std::uint16_t>(sign | (bits >= format.infinity() ? format.infinity() : static_cast<std::uint16_t>(bits)));
}

template <typename From, typename To>
void expect_all_values_both_ways(const Format& format, std::uint16_t nan, From from, To to) {
  for (int i = 0; i <= 0xFFFF; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float value = from(bits);
    if (is_nan(format, bits)) {
      ASSERT_TRUE(std::isnan(value)) << i;
      ASSERT_EQ(to(value), nan) << i;
      continue;
    }
    ASSERT_EQ(value, value_of(format, bits)) << i;
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << i;
    ASSERT_EQ(to(value), bits) << i;
  }
}

// Between each number and the next larger: the tie, and the nearest float32 on each side of it.
template <typename To>
void expect_ties_to_even(const Format& format, std::uint16_t nan, To to) {
  for (std::uint16_t bits = 0; bits < format.infinity(); ++bits) {
    const double here = value_of(format, bits);
    const bool is_last = bits + 1 == format.infinity();
    const double below = bits == 0 ? 0 : value_of(format, static_cast<std::uint16_t>(bits - 1));
    // What comes after the largest number, were there one more, is where infinity begins.
    const double next = is_last ? here + (here - below) : value_of(format, static_cast<std::uint16_t>(bits + 1));
    const float tie = static_cast<float>((here + next) / 2);
    // Half of the smallest bfloat16 is a float32, but subnormals of float32 end there.
    if (static_cast<double>(tie) != (here + next) / 2) continue;
    const auto above = static_cast<std::uint16_t>(bits + 1);
    const std::uint16_t even = bits % 2 == 0 ? bits : above;
    ASSERT_EQ(to(tie), even) << bits;
    ASSERT_EQ(to(-tie), even | 0x8000) << bits;
    const float infinity = std::numeric_limits<float>::infinity();
    ASSERT_EQ(to(std::nextafterf(tie, 0)), bits) << bits;
    ASSERT_EQ(to(std::nextafterf(tie, infinity)), above) << bits;
    ASSERT_EQ(nearest(format, tie, nan), even) << "the reference itself, " << bits;
  }
}

// Float32s of all exponents and signs, NaNs and infinities among them: every 4,099th, which is a prime.
template <typename To>
void expect_nearest(const Format& format, std::uint16_t nan, To to) {
  for (std::uint64_t i = 0; i <= 0xFFFFFFFF; i += 4'099) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(i));
    ASSERT_EQ(to(value), nearest(format, value, nan)) << value;
  }
}

TEST(BFloat16, All65536ValuesGoBothWays) { expect_all_values_both_ways(kBFloat16, kBFloat16NaN, from_bfloat16, to_bfloat16); }
TEST(BFloat16, TiesGoToTheEvenOne) { expect_ties_to_even(kBFloat16, kBFloat16NaN, to_bfloat16); }
TEST(BFloat16, IsTheNearest) { expect_nearest(kBFloat16, kBFloat16NaN, to_bfloat16); }

TEST(Float16, All65536ValuesGoBothWays) { expect_all_values_both_ways(kFloat16, kFloat16NaN, from_float16, to_float16); }
TEST(Float16, TiesGoToTheEvenOne) { expect_ties_to_even(kFloat16, kFloat16NaN, to_float16); }
TEST(Float16, IsTheNearest) { expect_nearest(kFloat16, kFloat16NaN, to_float16); }

TEST(Float16, TheRangeEndsWhereItShould) {
  EXPECT_EQ(to_float16(65504.0f), 0x7BFF);
  EXPECT_EQ(to_float16(65519.996f), 0x7BFF);
  EXPECT_EQ(to_float16(65520.0f), 0x7C00) << "as near to 65536, which would have an even fraction";
  EXPECT_EQ(to_float16(std::ldexp(1.0f, -25)), 0) << "half of the smallest, and zero is even";
  EXPECT_EQ(to_float16(std::nextafterf(std::ldexp(1.0f, -25), 1)), 1);
}

}  // namespace
}  // namespace poseidon::base
