// When a job goes over to another plan, with numbers worked by hand.
#include "cluster/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace poseidon::cluster {
namespace {

using ::testing::HasSubstr;
using Wish = Planner::Wish;

// The two layers of tests/plan/schedule_test.cpp: with 3 s of `conv` to hide behind, block is best for `fc` at a link of 4 MB/s
// (3.4 s an iteration) and sfb is not (3.5 s); alone on the network sfb is.
const Model kModel{{{"conv.weight", {100'000}, DType::kFloat32}, {"fc.weight", {1'000, 1'000}, DType::kFloat32}},
                   {{"conv", {TensorId{0}}, 0}, {"fc", {TensorId{1}}, 100}}};
constexpr plan::Speeds kSpeeds{.link_bytes_per_second = 4e6, .latency_seconds = 1e-9, .flops_per_second = 1e9, .sum_bytes_per_second = 1e12};

// What two alike workers tell of a window. Under a factor scheme fc's backward pass lacks the product, 2 · 100 · 10^6 operations.
plan::Profile profile(Iteration iteration, double seconds, double conv_backward = 2) {
  return {iteration, seconds, 0, {{1, conv_backward}, {0.1, 0}}};
}

struct Job {
  explicit Job(PlannerOptions options = {.workers = 2, .schemes = {}, .plan_json = {}, .plan_name = {}, .replan = {.gain_min = 0.02}})
      : planner(std::move(options)) {
    EXPECT_TRUE(planner.begin(kModel, true, {kSpeeds, {}}, 0, true).ok());
  }
  Wish tell(const plan::Profile& profile) {
    EXPECT_EQ(planner.on_profile(Rank{1}, profile).value(), Wish::kNothing) << "one worker's window decides nothing";
    return planner.on_profile(Rank{0}, profile).value();
  }
  void change(Iteration from) {
    PlanChange change = planner.proposal();
    change.from = from;
    planner.changed(change);
  }
  Scheme scheme() const { return planner.plan().layers[1].scheme; }
  Planner planner;
};

TEST(Planner, TheFirstPlanIsCorrectedOnceTheScheduleIsKnown) {
  Job job;
  EXPECT_EQ(job.scheme(), Scheme::kSfb);
  EXPECT_EQ(job.tell(profile(10, 3.5)), Wish::kNothing) << "too early";
  EXPECT_EQ(job.tell(profile(20, 3.5)), Wish::kReplan);
  const PlanChange& change = job.planner.proposal();
  EXPECT_EQ(change.plan.layers[1].scheme, Scheme::kBlock);
  EXPECT_EQ(change.what, "fc sfb -> block 1x2");
  EXPECT_EQ(change.why, "the first plan took each layer by itself");
  EXPECT_NEAR(change.seconds_before, 3.5, 1e-6);
  EXPECT_NEAR(change.seconds_after, 3.4, 1e-6);
}

TEST(Planner, ASmallGainIsNotWorthAChange) {
  Job job({.workers = 2, .schemes = {}, .plan_json = {}, .plan_name = {}, .replan = {.gain_min = 0.04}});
  for (Iteration i = 20; i < 200; i += 10) EXPECT_EQ(job.tell(profile(i, 3.5)), Wish::kNothing);
}

TEST(Planner, LaterOneWindowIsNotEnough) {
  Job job;
  ASSERT_EQ(job.tell(profile(20, 3.5)), Wish::kReplan);
  job.change(24);
  EXPECT_EQ(job.tell(profile(34, 3.4)), Wish::kNothing);
  // A batch of a hundredth: nothing to hide behind, and sfb is best again.
  EXPECT_EQ(job.tell(profile(44, 1, 0.02)), Wish::kNothing) << "a rest of 20 iterations is not over, or it was only one window";
  EXPECT_EQ(job.tell(profile(200, 3.4)), Wish::kNothing);
  const plan::Profile small{210, 3.4, 0, {{0.01, 0.02}, {0.1, 0}}};
  EXPECT_EQ(job.tell(small), Wish::kNothing);
  EXPECT_EQ(job.tell(small), Wish::kReplan);
  EXPECT_EQ(job.planner.proposal().plan.layers[1].scheme, Scheme::kSfb);
  EXPECT_EQ(job.planner.proposal().why, "the layers' computing times have changed");
}

TEST(Planner, APlanThatWasSlowerAfterAllIsGivenBackAndNotTriedAgain) {
  Job job;
  ASSERT_EQ(job.tell(profile(20, 3.5)), Wish::kReplan);
  job.change(24);
  EXPECT_EQ(job.tell(profile(34, 4)), Wish::kNothing);
  EXPECT_EQ(job.tell(profile(44, 4)), Wish::kReplan);
  EXPECT_EQ(job.planner.proposal().plan.layers[1].scheme, Scheme::kSfb);
  EXPECT_THAT(job.planner.proposal().why, HasSubstr("iterations take 4.0 s with it instead of 3.5 s"));
  job.change(48);
  for (Iteration i = 60; i < 1000; i += 10) EXPECT_EQ(job.tell(profile(i, 3.5)), Wish::kNothing);
}

TEST(Planner, ADriftLeadsToNewMeasurementsAndTheseToAnotherPlan) {
  Job job;
  ASSERT_EQ(job.tell(profile(20, 3.5)), Wish::kReplan);
  job.change(24);
  EXPECT_EQ(job.tell(profile(34, 3.4)), Wish::kNothing);
  EXPECT_EQ(job.tell(profile(50, 40)), Wish::kNothing) << "perhaps somebody else used the link for a moment";
  EXPECT_EQ(job.tell(profile(60, 40)), Wish::kMeasure);
  plan::Speeds slower = kSpeeds;
  slower.link_bytes_per_second = 4e5;
  // fc: 6.5 s by block, 2 by sfb; conv 1.
  const std::optional<PlanChange> change = job.planner.measured({slower, {}});
  ASSERT_TRUE(change);
  EXPECT_EQ(change->what, "fc block 1x2 -> sfb");
  EXPECT_EQ(change->why, "an iteration takes 40.0 s instead of 3.4 s; link 0.0032 instead of 0.032 Gbit/s");
}

TEST(Planner, MeasuringThatChangesNothingIsDoneEverMoreRarely) {
  Job job;
  ASSERT_EQ(job.tell(profile(20, 3.5)), Wish::kReplan);
  job.change(24);
  Iteration iteration = 24;
  std::vector<Iteration> measured;
  // Iterations that take now 3.4, now 5 s, for whatever reason.
  for (int i = 0; i < 400; ++i) {
    iteration += 10;
    if (job.tell(profile(iteration, i % 8 < 4 ? 3.4 : 5)) != Wish::kMeasure) continue;
    measured.push_back(iteration);
    EXPECT_FALSE(job.planner.measured({kSpeeds, {}}));
  }
  ASSERT_GE(measured.size(), 3u);
  EXPECT_LE(measured.size(), 8u);
  EXPECT_GT(measured[2] - measured[1], measured[1] - measured[0]);
}

TEST(Planner, AGivenPlanIsKept) {
  const plan::Plan sfb{2, {{"conv", Scheme::kPs, {}, Rank{0}}, {"fc", Scheme::kSfb, {}, Rank{0}}}};
  Job job({.workers = 2, .schemes = {}, .plan_json = plan::to_json(sfb), .plan_name = "p.json", .replan = {}});
  EXPECT_FALSE(job.planner.watches());
  EXPECT_EQ(job.tell(profile(20, 3.5)), Wish::kNothing);
  EXPECT_EQ(job.planner.plan(), sfb);
}

// Rank 0 and 2 on one machine, 1 and 3 on another; all others' links are ten times as fast as those of their leaders.
const Figures kTwoMachines{kSpeeds, {{4e6, 4e6, 4e7, 4e7}, {}}, {{"a", "rank 0"}, {"b", "rank 1"}, {"a", "rank 2"}, {"b", "rank 3"}}};

TEST(Planner, WorkersOfAMachineAreOneNodeWhereTheyCombine) {
  Planner planner({.workers = 4, .schemes = {}, .plan_json = {}, .plan_name = {}, .per_host = plan::PerHost::kAll, .replan = {}});
  const auto choices = planner.begin(kModel, true, kTwoMachines, 0, true);
  ASSERT_TRUE(choices.ok()) << choices.error().message;
  EXPECT_EQ(planner.plan().workers, 4);
  EXPECT_EQ(planner.plan().hosts, (plan::HostGroups{{Rank{0}, Rank{2}}, {Rank{1}, Rank{3}}}));
  EXPECT_TRUE(planner.plan().server_shares.empty()) << "the leaders' links are alike";
  // As two workers of which each has twice the rows.
  Model doubled = kModel;
  doubled.layers[1].factor_rows = 200;
  EXPECT_EQ(planner.plan().layers, plan::plan_of(plan::choose(doubled, 2, {}, kSpeeds, true).value(), 2).layers);
  EXPECT_FALSE(planner.watches()) << "a worker's times do not tell a leader's";
  EXPECT_TRUE(plan::parse_plan(plan::to_json(planner.plan()), kModel, 4).ok());
}

TEST(Planner, GivenHostsMustBeMachinesAndHaveNoDedicatedServers) {
  plan::Plan given{.workers = 4, .layers = {{"conv", Scheme::kPs, {}, Rank{0}}, {"fc", Scheme::kPs, {}, Rank{0}}}};
  given.hosts = {{Rank{0}, Rank{2}}, {Rank{1}, Rank{3}}};
  const auto begin = [&](int servers) {
    Planner planner({.workers = 4, .servers = servers, .schemes = {}, .plan_json = plan::to_json(given), .plan_name = "p.json", .replan = {}});
    return planner.begin(kModel, true, kTwoMachines, 0, true);
  };
  EXPECT_TRUE(begin(0).ok());
  EXPECT_THAT(begin(1).error().message, HasSubstr("it cannot be used with 1 dedicated servers"));
  given.hosts = {{Rank{0}, Rank{1}}, {Rank{2}, Rank{3}}};
  EXPECT_THAT(begin(0).error().message, HasSubstr("p.json: its \"hosts\" put rank 0 and rank 1 on one host"));
}

TEST(Planner, HostsThatCombineHaveNoDedicatedServers) {
  Planner planner({.workers = 4, .servers = 1, .schemes = {}, .plan_json = {}, .plan_name = {}, .per_host = plan::PerHost::kAll, .replan = {}});
  EXPECT_THAT(planner.begin(kModel, true, kTwoMachines, 0, true).error().message, HasSubstr("no place for dedicated servers"));
}

TEST(Planner, AProfileOfAnotherModelIsRefused) {
  Job job;
  plan::Profile wrong = profile(20, 3.5);
  wrong.layers.pop_back();
  EXPECT_FALSE(job.planner.on_profile(Rank{0}, wrong).ok());
}

}  // namespace
}  // namespace poseidon::cluster
