#include "engines/caffe/tools/old_flags.h"

#include <gtest/gtest.h>

#include <array>

namespace poseidon::caffe {
namespace {

using Words = std::vector<std::string>;

Words modern(const Words& words) {
  static constexpr std::array<std::string_view, 2> kSwitches = {"gray", "check-size"};
  return modern_spelling(words, kSwitches);
}

TEST(OldFlags, GetTwoDashesAndNoUnderscores) {
  EXPECT_EQ(modern({"-resize_height", "28", "--resize_width=28", "-gray"}),
            (Words{"--resize-height", "28", "--resize-width=28", "--gray"}));
  EXPECT_EQ(modern({"-solver", "a_b.prototxt", "-weights=a_b,c"}),
            (Words{"--solver", "a_b.prototxt", "--weights=a_b,c"}));
}

TEST(OldFlags, TurnSwitchesOff) {
  EXPECT_EQ(modern({"-nogray", "--nocheck_size", "--gray=true", "-noise", "--node", "--nogray=x"}),
            (Words{"--gray=false", "--check-size=false", "--gray=true", "--noise", "--node", "--nogray=x"}));
}

TEST(OldFlags, LeaveEverythingElse) {
  const Words same = {"-h", "-5", "-0.5", "-", "images/", "a_b", "--resize-height", "---x", ""};
  EXPECT_EQ(modern(same), same);
  EXPECT_EQ(modern({"-gray", "--", "-resize_height"}), (Words{"--gray", "--", "-resize_height"}));
}

}  // namespace
}  // namespace poseidon::caffe
