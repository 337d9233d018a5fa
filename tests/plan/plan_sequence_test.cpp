#include "plan/plan_sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace poseidon::plan {
namespace {

using ::testing::HasSubstr;

const Model kModel{{{"ip1.weight", {50, 80}, DType::kFloat32}}, {{"ip1", {TensorId{0}}, 4}}};
const Plan kPs{2, {{"ip1", Scheme::kPs, {}, Rank{0}}}};
const Plan kBlock{2, {{"ip1", Scheme::kBlock, {1, 2}, Rank{0}}}};
const PlanSequence kTwo{{0, kPs}, {120, kBlock}};

Result<PlanSequence> parse(const std::string& text) { return parse_plan_sequence(text, kModel, 2); }

TEST(PlanSequence, ComesBackAsItWasWritten) {
  EXPECT_EQ(parse(to_json(kTwo)).value(), kTwo);
  const PlanSequence three{{0, kPs}, {1, kBlock}, {1'000'000'000'000, kPs}};
  EXPECT_EQ(parse(to_json(three)).value(), three);
}

TEST(PlanSequence, OfOnePlanIsThatPlan) {
  const PlanSequence one{{0, kBlock}};
  EXPECT_EQ(to_json(one), to_json(kBlock)) << "files of before there were sequences stay valid, and new ones simple";
  EXPECT_EQ(parse(to_json(kBlock)).value(), one);
}

TEST(PlanSequence, KnowsWhichIsInForce) {
  EXPECT_EQ(version_at(kTwo, 0), 0u);
  EXPECT_EQ(version_at(kTwo, 119), 0u);
  EXPECT_EQ(version_at(kTwo, 120), 1u);
  EXPECT_EQ(version_at(kTwo, 1'000'000), 1u);
}

TEST(PlanSequence, WhatIsNoneIsRefusedSayingWhere) {
  const std::string good = to_json(kTwo);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from << " in " << text;
    return parse(text.replace(at, from.size(), to));
  };
  const auto message = [](const Result<PlanSequence>& result) { return result ? "it was accepted" : result.error().message; };
  EXPECT_THAT(message(with("\"from\": 120", "\"from\": 0")), HasSubstr("version 1 is in force from 0, the one before it from 0"));
  EXPECT_THAT(message(with("\"from\": 120", "\"from\": -5")), HasSubstr("version 1 needs \"from\""));
  EXPECT_THAT(message(with("\"from\": 120", "\"from\": 1.5")), HasSubstr("version 1 needs \"from\""));
  EXPECT_THAT(message(with("\"from\": 0", "\"from\": 7")), HasSubstr("the first version is in force from 7"));
  EXPECT_THAT(message(with("\"workers\": 2", "\"workers\": 3")), HasSubstr("version 0: the plan cannot be used: it was made for 3"));
  EXPECT_THAT(message(with("\"poseidon_plans\": 1", "\"poseidon_plans\": 2")), HasSubstr("their format is 2"));
  EXPECT_THAT(message(parse(R"({"poseidon_plans": 1, "versions": []})")), HasSubstr("a list of 1 to"));
  EXPECT_THAT(message(parse(R"({"poseidon_plans": 1, "versions": [7]})")), HasSubstr("version 0 is no object"));
  EXPECT_THAT(message(parse("{")), HasSubstr("the plan cannot be used"));
}

}  // namespace
}  // namespace poseidon::plan
