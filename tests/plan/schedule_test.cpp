// The time of an iteration in the schedule, and the plan that it asks for, with numbers worked by hand.
#include "plan/schedule.h"

#include <gtest/gtest.h>

#include "plan/profile.h"

namespace poseidon::plan {
namespace {

// Two layers: a small dense one with nearly all the computing, and above it a fully connected one of M = N = 1,000 without a bias,
// K = 100. Two workers; in float32 the link carries for `fc`
//   ps     2 (1/2) 10^6 numbers, 4 MB: 1 s
//   sfb    100 · 2,000 numbers, 0.8 MB: 0.2 s; 2 · 100 · 10^6 operations more, 0.2 s
//   block  1 x 2: 100 (1,000 + 500) + 10^6 / 2 numbers, 2.6 MB: 0.65 s
// and for `conv` (10^5 numbers) 0.4 MB, 0.1 s.
struct TwoLayers {
  Model model{{{"conv.weight", {100'000}, DType::kFloat32}, {"fc.weight", {1'000, 1'000}, DType::kFloat32}},
              {{"conv", {TensorId{0}}, 0}, {"fc", {TensorId{1}}, 100}}};
  Speeds speeds{.link_bytes_per_second = 4e6, .latency_seconds = 1e-9, .flops_per_second = 1e9, .sum_bytes_per_second = 1e12};

  Schedule schedule(ComputeTimes conv, ComputeTimes fc) const { return {&model, 2, speeds, {conv, fc}}; }
  Plan with(LayerPlan fc) const { return {2, {{"conv", Scheme::kPs, {}, Rank{0}}, std::move(fc)}}; }
  Plan ps() const { return with({"fc", Scheme::kPs, {}, Rank{0}}); }
  Plan sfb() const { return with({"fc", Scheme::kSfb, {}, Rank{0}}); }
  Plan block() const { return with({"fc", Scheme::kBlock, {1, 2}, Rank{0}}); }
};

TEST(Schedule, HiddenBytesCostNothingAndReconstructionDoes) {
  const TwoLayers two;
  const Schedule busy = two.schedule({1, 2}, {0.1, 0.2});
  // Computing 3.3; the dense layer's 0.1 after all of it. The other's second hides behind 3 s of the dense layer.
  EXPECT_NEAR(iteration_seconds(busy, two.ps()), 3.4, 1e-6);
  EXPECT_NEAR(iteration_seconds(busy, two.block()), 3.4, 1e-6);
  EXPECT_NEAR(iteration_seconds(busy, two.sfb()), 3.5, 1e-6) << "computing and 0.2 of reconstruction";
}

TEST(Schedule, ExposedBytesCostTheirTime) {
  const TwoLayers two;
  const Schedule idle = two.schedule({0.01, 0.02}, {0.1, 0.2});
  EXPECT_NEAR(iteration_seconds(idle, two.ps()), 0.3 + 0.1 + 1, 1e-6);
  EXPECT_NEAR(iteration_seconds(idle, two.block()), 0.3 + 0.1 + 0.65, 1e-6);
  EXPECT_NEAR(iteration_seconds(idle, two.sfb()), 0.3 + 0.1 + 0.2 + 0.2, 1e-6);
}

TEST(Schedule, LatenciesAndSumsAreNotForgotten) {
  TwoLayers two;
  two.speeds.latency_seconds = 0.05;
  EXPECT_NEAR(iteration_seconds(two.schedule({1, 2}, {0.1, 0.2}), two.ps()), 3.4 + 2 * 0.05, 1e-9);
  two.speeds.latency_seconds = 1e-9;
  two.speeds.sum_bytes_per_second = 0.1e6;  // 4 s for the dense layer's 0.4 MB, 40 s for the other's 4 MB
  EXPECT_NEAR(iteration_seconds(two.schedule({1, 2}, {0.1, 0.2}), two.ps()), 0.3 + 4 + 40, 1e-6);
}

TEST(Schedule, TheChoiceIsAnotherThanForEachLayerAlone) {
  const TwoLayers two;
  const SchemeRequest any;
  // Alone on the network fc takes 1 s by ps, 0.65 s by block and 0.4 s by sfb.
  const std::vector<LayerChoice> alone = choose(two.model, 2, any, two.speeds).value();
  EXPECT_EQ(alone[1].chosen.scheme, Scheme::kSfb);
  // In the schedule all but sfb are hidden; of these block takes less of the link.
  EXPECT_EQ(best_plan(two.schedule({1, 2}, {0.1, 0.2}), any, true, two.sfb()), two.block());
  // With nothing to hide behind it is as if alone.
  EXPECT_EQ(best_plan(two.schedule({0.01, 0.02}, {0.1, 0.2}), any, true, two.ps()), two.sfb());
  EXPECT_EQ(best_plan(two.schedule({0.01, 0.02}, {0.1, 0.2}), any, false, two.ps()), two.block()) << "sfb is not offered";
}

TEST(Schedule, WhatTheUserAskedForStays) {
  const TwoLayers two;
  const Schedule busy = two.schedule({1, 2}, {0.1, 0.2});
  SchemeRequest request;
  request.by_layer["fc"] = Scheme::kSfb;
  EXPECT_EQ(best_plan(busy, request, true, two.sfb()), two.sfb());
  EXPECT_FALSE(has_choice(two.model, 2, request));
  request = {};
  EXPECT_TRUE(has_choice(two.model, 2, request));
  EXPECT_FALSE(has_choice(two.model, 1, request)) << "nothing travels";
  request.all = Scheme::kPs;
  EXPECT_FALSE(has_choice(two.model, 2, request));
}

TEST(Profile, TimesBetweenGradientsAreBackwardPasses) {
  // An iteration of 10 s: 1 s of waiting, gradients after 5, 7 and 10 s from the top layer down.
  const Gaps gaps = gaps_of({.seconds = 10, .waited_seconds = 1, .handed_in = {10, 7, 5}});
  EXPECT_EQ(gaps.first, 2u);
  EXPECT_EQ(gaps.before, (std::vector<double>{3, 2, 4}));
  // The top layer's b and F are 4 together, and F is half of all b: b + (3 + 2 + b) / 2 = 4, so b = 1 and F = 3.
  EXPECT_EQ(compute_times(gaps), (std::vector<ComputeTimes>{{1.5, 3}, {1, 2}, {0.5, 1}}));
}

TEST(Profile, ALayerWithoutAGradientLeavesItsTimeToTheNext) {
  const Gaps gaps = gaps_of({.seconds = 10, .waited_seconds = 0, .handed_in = {10, std::nullopt, 5}});
  EXPECT_EQ(gaps.before, (std::vector<double>{5, 0, 5}));
}

TEST(Profile, BranchesMayComeInAnyOrder) {
  const Gaps gaps = gaps_of({.seconds = 10, .waited_seconds = 0, .handed_in = {10, 6, 8, 5}});
  EXPECT_EQ(gaps.before, (std::vector<double>{2, 1, 2, 5}));
}

TEST(Profile, IsTheMedianOfItsWindow) {
  const Observation usual{.seconds = 6, .waited_seconds = 1, .handed_in = {6, 4}};
  const Observation tested{.seconds = 60, .waited_seconds = 1, .handed_in = {60, 58}};
  const Profile profile = profile_of(17, {usual, tested, usual});
  EXPECT_EQ(profile.iteration, 17u);
  EXPECT_EQ(profile.iteration_seconds, 6);
  EXPECT_EQ(profile.waited_seconds, 1);
  EXPECT_EQ(profile.layers, compute_times(gaps_of(usual)));
}

}  // namespace
}  // namespace poseidon::plan
