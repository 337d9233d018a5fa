#include "base/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace poseidon::base {
namespace {

// The known answers that come with the authors' library (Random123, kat_vectors, philox4x32 10).
TEST(Philox, GivesThePublishedAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {{0, 0}}), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xFFFFFFFF;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, {{kOnes, kOnes}}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {{0xa4093822, 0x299f31d0}}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Uniform01, StaysBelowOneAndIsExactInFloat32) {
  EXPECT_EQ(uniform01(0), 0.0);
  EXPECT_LT(uniform01(0xFFFFFFFF), 1.0);
  EXPECT_EQ(static_cast<double>(static_cast<float>(uniform01(0xFFFFFFFF))), uniform01(0xFFFFFFFF));
}

TEST(RandomStream, DiffersBySeedPurposeAndEveryIndex) {
  std::set<PhiloxCounter> seen;
  for (const std::uint64_t seed : {1u, 2u}) {
    for (const char* purpose : {"drop1", "drop2"}) {
      const RandomStream stream(seed, purpose);
      for (const std::uint64_t major : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 33}) {
        for (const std::uint64_t minor : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 33}) {
          for (const std::uint32_t block : {0u, 1u}) seen.insert(stream.words(major, minor, block));
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), 2u * 2 * 3 * 3 * 2);
}

TEST(RandomStream, IsUniform) {
  const RandomStream stream(7, "conv1.weight");
  double sum = 0;
  double squares = 0;
  constexpr int kDraws = 100'000;
  for (std::uint32_t i = 0; i < kDraws / 4; ++i) {
    for (const std::uint32_t word : stream.words(0, 0, i)) {
      sum += uniform01(word);
      squares += uniform01(word) * uniform01(word);
    }
  }
  // Five standard deviations of the mean, and as much for the second moment (1/3).
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
}

}  // namespace
}  // namespace poseidon::base
