// The sums of every set of loops that this processor can run, against additions one by one.
#include "runtime/sum_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/half.h"
#include "support/seeds.h"

namespace poseidon::runtime {
namespace {

constexpr DType kAllTypes[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};

using Numbers = std::vector<std::uint64_t>;  // the bits of each, whatever the type

// Addition is exact to the last bit of the wider type here, and rounding a double's 53 bits to a float's 24 after one addition
// gives what adding in float32 gives: 53 >= 2 * 24 + 2.
float add(float a, float b) { return static_cast<float>(static_cast<double>(a) + static_cast<double>(b)); }

std::uint64_t right_sum(DType dtype, const std::vector<Numbers>& addends, std::size_t i) {
  if (dtype == DType::kFloat64) {
    volatile double sum = std::bit_cast<double>(addends[0][i]);  // volatile: the compiler may not change the order
    for (std::size_t k = 1; k < addends.size(); ++k) sum = sum + std::bit_cast<double>(addends[k][i]);
    return std::isnan(sum) ? base::kFloat64NaN : std::bit_cast<std::uint64_t>(static_cast<double>(sum));
  }
  const auto value = [&](std::size_t k) {
    const std::uint64_t bits = addends[k][i];
    if (dtype == DType::kFloat32) return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    // Tested against an independent reference in tests/base/half_test.cpp.
    return dtype == DType::kFloat16 ? base::from_float16(static_cast<std::uint16_t>(bits))
                                    : base::from_bfloat16(static_cast<std::uint16_t>(bits));
  };
  float sum = value(0);
  for (std::size_t k = 1; k < addends.size(); ++k) sum = add(sum, value(k));
  if (dtype == DType::kFloat32) return std::isnan(sum) ? base::kFloat32NaN : std::bit_cast<std::uint32_t>(sum);
  return dtype == DType::kFloat16 ? base::to_float16(sum) : base::to_bfloat16(sum);
}

// Any bits at all, so infinities, NaNs and subnormals are among them, or numbers near 1 of both signs.
std::uint64_t random_number(DType dtype, bool any, std::mt19937_64& random) {
  if (any) return random() >> (64 - 8 * bytes_of(dtype));
  const double value = std::uniform_real_distribution<double>(-1, 1)(random);
  const float narrow = static_cast<float>(value);
  switch (dtype) {
    case DType::kFloat32:
      return std::bit_cast<std::uint32_t>(narrow);
    case DType::kFloat64:
      return std::bit_cast<std::uint64_t>(value);
    case DType::kBFloat16:
      return base::to_bfloat16(narrow);
    case DType::kFloat16:
      return base::to_float16(narrow);
  }
  return 0;
}

// An array somewhere in memory, with a margin on each side that must stay as it was.
class Array {
 public:
  Array(DType dtype, std::size_t elements, std::size_t misalignment)
      : width_(bytes_of(dtype)), begin_(kMargin + misalignment), memory_(begin_ + elements * width_ + kMargin, kUntouched) {}
  Array(DType dtype, const Numbers& numbers, std::size_t misalignment) : Array(dtype, numbers.size(), misalignment) {
    for (std::size_t i = 0; i < numbers.size(); ++i) std::memcpy(data() + i * width_, &numbers[i], width_);
  }
  std::byte* data() { return memory_.data() + begin_; }
  std::uint64_t operator[](std::size_t i) const {
    std::uint64_t bits = 0;
    std::memcpy(&bits, memory_.data() + begin_ + i * width_, width_);  // little-endian
    return bits;
  }
  bool margins_are_untouched() const {
    const auto is = [](std::byte b) { return b == kUntouched; };
    return std::all_of(memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(begin_), is) &&
           std::all_of(memory_.end() - kMargin, memory_.end(), is);
  }

 private:
  static constexpr std::ptrdiff_t kMargin = 64;
  static constexpr std::byte kUntouched{0xA5};
  std::size_t width_;
  std::size_t begin_;
  std::vector<std::byte> memory_;
};

struct Case {
  DType dtype;
  std::vector<Numbers> addends;
  std::vector<std::size_t> misalignments;  // of the addends, then of out and copy
  int out = -1;                            // the addend that `out` is, or -1: memory of its own
  int copy = -1;                           // likewise; -2: there is none
};

Case random_case(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Case test;
  test.dtype = kAllTypes[random() % 4];
  const std::size_t count = 1 + random() % 9;
  // Up to a few steps of the widest loops, and now and then past a block of the plain ones.
  const std::size_t elements = random() % (seed % 8 == 0 ? 3'000 : 200);
  const bool any = random() % 2 == 0;
  for (std::size_t k = 0; k < count; ++k) {
    Numbers numbers(elements);
    for (std::uint64_t& number : numbers) number = random_number(test.dtype, any, random);
    test.addends.push_back(std::move(numbers));
  }
  for (std::size_t k = 0; k < count + 2; ++k) test.misalignments.push_back(random() % 2 == 0 ? 0 : random() % 64);
  test.out = static_cast<int>(random() % (count + 1)) - 1;
  test.copy = static_cast<int>(random() % (count + 2)) - 2;
  if (test.copy == test.out) test.copy = -2;
  return test;
}

void expect_right(const SumKernels& kernels, const Case& test) {
  const std::size_t elements = test.addends[0].size();
  std::vector<Array> arrays;
  for (std::size_t k = 0; k < test.addends.size(); ++k) arrays.emplace_back(test.dtype, test.addends[k], test.misalignments[k]);
  arrays.emplace_back(test.dtype, elements, test.misalignments[test.addends.size()]);
  arrays.emplace_back(test.dtype, elements, test.misalignments[test.addends.size() + 1]);
  Array& out = test.out >= 0 ? arrays[static_cast<std::size_t>(test.out)] : arrays[test.addends.size()];
  Array& copy = test.copy >= 0 ? arrays[static_cast<std::size_t>(test.copy)] : arrays[test.addends.size() + 1];
  std::vector<const std::byte*> addends;
  for (std::size_t k = 0; k < test.addends.size(); ++k) addends.push_back(arrays[k].data());
  kernels.of(test.dtype)({addends, elements, out.data(), test.copy == -2 ? nullptr : copy.data()});
  for (std::size_t i = 0; i < elements; ++i) {
    const std::uint64_t right = right_sum(test.dtype, test.addends, i);
    ASSERT_EQ(out[i], right) << to_string(test.dtype) << " number " << i << " of " << elements;
    if (test.copy != -2) {
      ASSERT_EQ(copy[i], right) << to_string(test.dtype) << " number " << i << " of the copy";
    }
  }
  for (std::size_t k = 0; k < arrays.size(); ++k) {
    ASSERT_TRUE(arrays[k].margins_are_untouched()) << "around array " << k;
    if (k >= test.addends.size() || static_cast<int>(k) == test.out || static_cast<int>(k) == test.copy) continue;
    for (std::size_t i = 0; i < elements; ++i) ASSERT_EQ(arrays[k][i], test.addends[k][i]) << "addend " << k << " was changed";
  }
}

class SumKernelsTest : public ::testing::TestWithParam<SumKernels> {};

TEST_P(SumKernelsTest, AddFromLeftToRightWhateverTheLengthAlignmentAndAliasing) {
  for (const std::uint64_t seed : test::seeds(3'000)) {
    SCOPED_TRACE(test::replay(seed));
    expect_right(GetParam(), random_case(seed));
    if (HasFatalFailure()) return;
  }
}

// One addend is loaded and rounded: a number of 16 bits comes back as it was, a NaN as the one NaN.
TEST_P(SumKernelsTest, ASumOfOneOfAll65536Numbers) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    Numbers all(65'536);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    expect_right(GetParam(), {dtype, {all}, {0, 0, 0}, -1, -2});
  }
}

// Each number and half of the step to the next: all the ties. The halves of the smallest steps are no numbers of the type and
// are left out.
TEST_P(SumKernelsTest, TiesOfAllNumbersOf16Bits) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const std::uint64_t infinity = dtype == DType::kBFloat16 ? 0x7F80 : 0x7C00;
    const int fraction_bits = dtype == DType::kBFloat16 ? 7 : 10;
    Numbers numbers;
    Numbers halves;
    for (std::uint64_t bits = 0; bits < infinity; ++bits) {
      const std::uint64_t exponent = bits >> fraction_bits;
      if (exponent < static_cast<std::uint64_t>(fraction_bits) + 2) continue;
      for (const std::uint64_t sign : {0u, 0x8000u}) {
        numbers.push_back(bits | sign);
        halves.push_back(((exponent - static_cast<std::uint64_t>(fraction_bits) - 1) << fraction_bits) | sign);
      }
    }
    expect_right(GetParam(), {dtype, {numbers, halves}, {0, 0, 0, 0}, -1, -1});
  }
}

TEST_P(SumKernelsTest, NumbersOf16BitsAreRoundedOnceAtTheEnd) {
  // 256 + 1 is a tie in bfloat16 and would stay 256 four times over; 2048 + 1 likewise in float16.
  for (const auto& [dtype, large] : {std::pair{DType::kBFloat16, 256.0f}, {DType::kFloat16, 2048.0f}}) {
    const auto bits = [dtype = dtype](float v) -> std::uint64_t {
      return dtype == DType::kBFloat16 ? base::to_bfloat16(v) : base::to_float16(v);
    };
    Array first(dtype, Numbers(100, bits(large)), 0);
    Array one(dtype, Numbers(100, bits(1)), 0);
    Array out(dtype, 100, 0);
    const std::vector<const std::byte*> addends = {first.data(), one.data(), one.data(), one.data(), one.data()};
    GetParam().of(dtype)({addends, 100, out.data(), nullptr});
    for (std::size_t i = 0; i < 100; ++i) ASSERT_EQ(out[i], bits(large + 4)) << to_string(dtype);
  }
}

TEST_P(SumKernelsTest, OppositeInfinitiesMakeTheOneNaN) {
  const Numbers up(50, std::bit_cast<std::uint32_t>(std::numeric_limits<float>::infinity()));
  const Numbers down(50, std::bit_cast<std::uint32_t>(-std::numeric_limits<float>::infinity()));
  expect_right(GetParam(), {DType::kFloat32, {up, down}, {0, 0, 0, 0}, -1, -2});
  Array a(DType::kFloat32, up, 0);
  Array b(DType::kFloat32, down, 0);
  const std::vector<const std::byte*> addends = {a.data(), b.data()};
  GetParam().of(DType::kFloat32)({addends, 50, a.data(), nullptr});
  EXPECT_EQ(a[7], 0x7FC00000u);
}

// What a float32 is rounded to is base/half.h's answer, which tests/base/half_test.cpp compares with an independent one.
void expect_converted(const SumKernels& kernels, DType narrow, const Numbers& float32, std::size_t from_at, std::size_t to_at) {
  Array from(DType::kFloat32, float32, from_at);
  Array to(narrow, float32.size(), to_at);
  kernels.narrow_to(narrow)(from.data(), float32.size(), to.data());
  for (std::size_t i = 0; i < float32.size(); ++i) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(float32[i]));
    ASSERT_EQ(to[i], narrow == DType::kBFloat16 ? base::to_bfloat16(value) : base::to_float16(value))
        << to_string(narrow) << " number " << i << " of " << float32.size() << ", " << std::hexfloat << value;
  }
  ASSERT_TRUE(from.margins_are_untouched() && to.margins_are_untouched());
}

TEST_P(SumKernelsTest, NarrowsToTheNearestWhateverTheLengthAndAlignment) {
  for (const std::uint64_t seed : test::seeds(2'000)) {
    SCOPED_TRACE(test::replay(seed));
    std::mt19937_64 random(seed);
    const DType narrow = random() % 2 == 0 ? DType::kBFloat16 : DType::kFloat16;
    const bool any = random() % 2 == 0;
    Numbers numbers(random() % 300);
    for (std::uint64_t& number : numbers) number = random_number(DType::kFloat32, any, random);
    expect_converted(GetParam(), narrow, numbers, random() % 64, random() % 64);
    if (HasFatalFailure()) return;
  }
}

// Around each number of 16 bits: itself, the tie above it, and what lies next to that tie on both sides.
TEST_P(SumKernelsTest, NarrowsAllTiesAndTheirNeighbours) {
  for (const DType narrow : {DType::kBFloat16, DType::kFloat16}) {
    Numbers numbers;
    for (std::uint32_t bits = 0; bits < 65'536; ++bits) {
      const auto half = static_cast<std::uint16_t>(bits);
      const std::uint32_t here =
          std::bit_cast<std::uint32_t>(narrow == DType::kBFloat16 ? base::from_bfloat16(half) : base::from_float16(half));
      const std::uint32_t tie = here + (narrow == DType::kBFloat16 ? 0x8000 : 0x1000);  // for normal numbers
      for (const std::uint32_t number : {here, tie - 1, tie, tie + 1}) numbers.push_back(number);
    }
    expect_converted(GetParam(), narrow, numbers, 0, 0);
  }
}

TEST_P(SumKernelsTest, WidensAll65536NumbersWhateverTheAlignment) {
  for (const DType narrow : {DType::kBFloat16, DType::kFloat16}) {
    Numbers all(65'536);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    for (const std::size_t at : {0, 2, 7}) {
      Array from(narrow, all, at);
      Array to(DType::kFloat32, all.size(), 3 * at);
      GetParam().widen_from(narrow)(from.data(), all.size(), to.data());
      for (std::size_t i = 0; i < all.size(); ++i) {
        const auto half = static_cast<std::uint16_t>(i);
        const float value = narrow == DType::kBFloat16 ? base::from_bfloat16(half) : base::from_float16(half);
        ASSERT_EQ(to[i], std::isnan(value) ? base::kFloat32NaN : std::bit_cast<std::uint32_t>(value)) << to_string(narrow) << " " << i;
      }
      ASSERT_TRUE(to.margins_are_untouched());
    }
  }
}

TEST_P(SumKernelsTest, WhatIsTooLargeForTheWireBecomesInfinite) {
  const auto narrowed = [](DType narrow, float value) {
    Array from(DType::kFloat32, Numbers(11, std::bit_cast<std::uint32_t>(value)), 0);
    Array to(narrow, 11, 0);
    GetParam().narrow_to(narrow)(from.data(), 11, to.data());
    return to[10];
  };
  EXPECT_EQ(narrowed(DType::kFloat16, 65'519.0f), 0x7BFFu) << "65504, the largest";
  EXPECT_EQ(narrowed(DType::kFloat16, 65'520.0f), 0x7C00u);
  EXPECT_EQ(narrowed(DType::kFloat16, -1e30f), 0xFC00u);
  EXPECT_EQ(narrowed(DType::kBFloat16, 1e30f), base::to_bfloat16(1e30f)) << "its range is that of float32";
  EXPECT_EQ(narrowed(DType::kBFloat16, std::numeric_limits<float>::max()), 0x7F80u);
}

INSTANTIATE_TEST_SUITE_P(Every, SumKernelsTest, ::testing::ValuesIn(sum_kernels_here().begin(), sum_kernels_here().end()),
                         [](const auto& set) { return std::string(set.param.name); });

}  // namespace
}  // namespace poseidon::runtime
