// Jobs that begin, end and meet faults, in virtual time. The names say which node, which fault, what must follow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/seeds.h"
#include "support/sim_job.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Everybody who lives has the same error within two seconds, and it contains `text`.
void expect_all_fail(SimMembership& job, int workers, const std::string& text) {
  ASSERT_TRUE(job.run_to_failure(2s)) << "somebody has not noticed within 2 s";
  ASSERT_TRUE(job.failed.has_value());
  EXPECT_THAT(job.failed->message, HasSubstr(text));
  for (int rank = 0; rank < workers; ++rank) {
    if (!job.world().at(job.member(rank)).alive()) continue;
    EXPECT_THAT(job.state(rank).failed->message, HasSubstr(text)) << "rank " << rank;
  }
}

TEST(Membership, AJobBeginsWithOnePlanForAllAndEndsWhenAllHaveLeft) {
  SimMembership job({.workers = 4});
  ASSERT_TRUE(job.run_to_start());
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(job.state(rank).plan, job.state(0).plan);
    EXPECT_EQ(job.state(rank).epoch.members.size(), 4u);
    EXPECT_EQ(job.state(rank).epoch.members[2].text(), "rank 2 (pid 102 on node2)");
  }
  job.worker(1).note("hello");
  for (int rank = 0; rank < 3; ++rank) job.worker(rank).leave();
  job.world().run_for(5s);
  EXPECT_FALSE(job.finished) << "rank 3 has not left";
  EXPECT_FALSE(job.state(0).goodbye);
  ASSERT_EQ(job.notes.size(), 1u);
  EXPECT_EQ(job.notes[0], std::make_pair(Rank{1}, std::string("hello")));
  job.worker(3).leave();
  job.world().run_for(1s);
  EXPECT_TRUE(job.finished);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(job.state(rank).goodbye);
    EXPECT_FALSE(job.state(rank).failed);
  }
}

TEST(Membership, AGatheringGivesEveryoneWhatAllHaveGivenByRank) {
  SimMembership job({.workers = 3});
  ASSERT_TRUE(job.run_to_start());
  // Rank 2 is far ahead: its second part must not be taken for its first.
  job.worker(2).gather("c1");
  job.worker(2).gather("c2");
  job.worker(0).gather("a1");
  job.world().run_for(1s);
  EXPECT_TRUE(job.state(0).gathered.empty());
  job.worker(1).gather("b1");
  job.world().run_for(1s);
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(job.state(rank).gathered, (std::vector<std::vector<std::string>>{{"a1", "b1", "c1"}}));
  job.worker(1).gather("b2");
  job.worker(0).gather("a2");
  job.world().run_for(1s);
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(job.state(rank).gathered.back(), (std::vector<std::string>{"a2", "b2", "c2"}));
}

TEST(Membership, TheLinkIsMeasuredAsItIs) {
  runtime::sim::SimOptions world;
  world.bytes_per_second = 50e6;
  world.latency = 700us;
  SimMembership job({.workers = 3, .world = world, .flops_per_second = {1e11, 2e10, 1e11}});
  ASSERT_TRUE(job.run_to_start());
  EXPECT_NEAR(job.speeds.link_bytes_per_second, 50e6, 0.05 * 50e6);
  EXPECT_NEAR(job.speeds.latency_seconds, 700e-6, 0.05 * 700e-6);
  EXPECT_NEAR(job.speeds.flops_per_second, 2e10, 0.01 * 2e10) << "the slowest counts";
}

TEST(Membership, AGivenBandwidthReplacesTheMeasuredOne) {
  cluster::CoordinatorOptions options;
  options.link_bytes_per_second = 123e6;
  SimMembership job({.workers = 2, .coordinator = options});
  ASSERT_TRUE(job.run_to_start());
  EXPECT_EQ(job.speeds.link_bytes_per_second, 123e6);
}

TEST(Membership, AWorkerThatDiesIsNamedToAllWithinTwoSeconds) {
  for (int victim = 0; victim < 4; ++victim) {
    SimMembership job({.workers = 4});
    ASSERT_TRUE(job.run_to_start());
    job.world().run_for(10s);
    ASSERT_FALSE(job.failed);
    job.world().kill(job.member(victim));
    expect_all_fail(job, 4, "rank " + std::to_string(victim) + " (pid " + std::to_string(100 + victim));
  }
}

TEST(Membership, AWorkerWhoseHostFallsSilentIsNamedWithinTwoSeconds) {
  SimMembership job({.workers = 3});
  ASSERT_TRUE(job.run_to_start());
  for (const Member other : {job.member(0), job.member(2), runtime::kCoordinator}) job.world().cut(job.member(1), other);
  expect_all_fail(job, 0, "rank 1 (pid 101 on node1) has not been heard of");
  EXPECT_THAT(job.state(0).failed->message, HasSubstr("rank 1"));
  EXPECT_THAT(job.state(2).failed->message, HasSubstr("rank 1"));
  EXPECT_THAT(job.state(1).failed->message, HasSubstr("launcher has not been heard of")) << "it cannot know more";
}

TEST(Membership, AStoppedWorkerIsNoticed) {
  SimMembership job({.workers = 2});
  ASSERT_TRUE(job.run_to_start());
  job.world().freeze(job.member(1));
  ASSERT_TRUE(job.world().run_until([&] { return job.failed.has_value(); }, job.world().now() + 2s));
  EXPECT_THAT(job.failed->message, HasSubstr("rank 1"));
}

TEST(Membership, ALauncherThatWasItselfStoppedSuspectsNobody) {
  SimMembership job({.workers = 2});
  ASSERT_TRUE(job.run_to_start());
  // As after Ctrl-Z and fg: everybody stands still, and goes on.
  for (const Member m : {job.member(0), job.member(1), runtime::kCoordinator}) job.world().freeze(m);
  job.world().run_for(60s);
  for (const Member m : {runtime::kCoordinator, job.member(1), job.member(0)}) job.world().resume(m);
  job.world().run_for(20s);
  EXPECT_FALSE(job.failed) << job.failed->message;
}

TEST(Membership, ADeadLauncherEndsTheWorkers) {
  SimMembership job({.workers = 2});
  ASSERT_TRUE(job.run_to_start());
  job.world().kill(runtime::kCoordinator);
  ASSERT_TRUE(job.run_to_failure(2s));
  EXPECT_THAT(job.state(0).failed->message, HasSubstr("the launcher is gone"));
}

TEST(Membership, AWorkersOwnErrorReachesAllWithItsName) {
  SimMembership job({.workers = 3});
  ASSERT_TRUE(job.run_to_start());
  job.worker(2).fail(Error{ErrorCode::kInvalid, "digits_lmdb is damaged near record 12"});
  ASSERT_TRUE(job.run_to_failure(2s));
  EXPECT_EQ(job.failed->message, "rank 2 (pid 102 on node2) failed: digits_lmdb is damaged near record 12");
  EXPECT_EQ(job.failed->code, ErrorCode::kInvalid);
  EXPECT_EQ(job.state(0).failed->message, job.failed->message);
}

TEST(Membership, AWorkerThatNeverJoinsIsNamedWhileTheOthersWaitAndInTheEnd) {
  cluster::CoordinatorOptions options;
  options.join_max = 30s;
  SimMembership job({.workers = 3, .coordinator = options, .never_join = {1}});
  EXPECT_FALSE(job.world().run_until([&] { return job.failed.has_value(); }, 25s));
  ASSERT_FALSE(job.waits.empty());
  EXPECT_THAT(job.waits[0], HasSubstr("waiting for rank 1 to join since 2."));
  EXPECT_LE(job.waits.size(), 5u) << "told now and then, not all the time";
  ASSERT_TRUE(job.world().run_until([&] { return job.state(0).failed && job.state(2).failed; }, 40s));
  EXPECT_THAT(job.failed->message, HasSubstr("gave up waiting for rank 1 to join"));
}

TEST(Membership, WorkersWithOtherParametersAreRefusedWithRankAndParameter) {
  Model other = small_model();
  other.tensors[1].shape = {16, 40};
  SimMembership job({.workers = 3, .models = {small_model(), small_model(), other}});
  job.world().run_until([&] { return job.failed.has_value(); }, 10s);
  ASSERT_TRUE(job.failed);
  EXPECT_EQ(job.failed->code, ErrorCode::kRefused);
  EXPECT_THAT(job.failed->message, HasSubstr("rank 2 (pid 102 on node2) has ip1.weight as [16, 40] float32"));
  EXPECT_THAT(job.failed->message, HasSubstr("has ip1.weight as [16, 36] float32"));
}

TEST(Membership, AWorkerWithOneParameterMoreIsRefused) {
  Model other = small_model();
  other.tensors.push_back({"ip2.weight", {10, 16}, DType::kFloat32});
  other.layers.push_back({"ip2", {TensorId{3}}, 0});
  SimMembership job({.workers = 2, .models = {small_model(), other}});
  job.world().run_until([&] { return job.failed.has_value(); }, 10s);
  ASSERT_TRUE(job.failed);
  EXPECT_THAT(job.failed->message, HasSubstr("only rank 1 (pid 101 on node1) has ip2.weight"));
}

TEST(Membership, APlanForAnotherNumberOfWorkersIsRefused) {
  cluster::CoordinatorOptions options;
  options.plan_json = R"({"poseidon_plan": 1, "workers": 4, "layers": []})";
  SimMembership job({.workers = 2, .coordinator = options});
  job.world().run_until([&] { return job.failed.has_value(); }, 10s);
  ASSERT_TRUE(job.failed);
  EXPECT_THAT(job.failed->message, HasSubstr("it was made for 4 workers, this job has 2"));
}

TEST(Membership, APlanWhoseHostsCannotShareMemoryIsRefused) {
  cluster::CoordinatorOptions options;
  plan::Plan plan{.workers = 2, .layers = {}, .hosts = {{Rank{0}, Rank{1}}}};
  for (const LayerSpec& layer : small_model().layers) plan.layers.push_back({layer.name, Scheme::kPs, {}, Rank{0}});
  options.plan_json = plan::to_json(plan);
  SimMembership job({.workers = 2, .coordinator = options});
  job.world().run_until([&] { return job.failed.has_value(); }, 10s);
  ASSERT_TRUE(job.failed);
  EXPECT_THAT(job.failed->message, HasSubstr("put rank 0 (pid 100 on node0) and rank 1 (pid 101 on node1) on one host"));
}

// Workers that begin an iteration whenever they may, each at its own speed and at most one ahead of the slowest, as the sums
// of bulk-synchronous training allow.
struct Runners {
  Runners(SimMembership& the_job, int workers) : job(the_job), begun(static_cast<std::size_t>(workers), -1), stopped(begun.size(), false) {}
  void begin(int rank) {
    const std::size_t r = static_cast<std::size_t>(rank);
    const std::int64_t next = begun[r] + 1;
    const std::int64_t slowest = *std::min_element(begun.begin(), begun.end());
    if (next > slowest + 1) {
      job.world().at(job.member(rank)).after(1ms, [this, rank] { begin(rank); });
      return;
    }
    job.worker(rank).begin(static_cast<Iteration>(next), [this, rank, r, next](bool go) {
      if (!go) {
        stopped[r] = true;
        return;
      }
      begun[r] = next;
      const auto time = std::chrono::microseconds(500 + job.world().random()() % 3000);
      job.world().at(job.member(rank)).after(time, [this, rank] { begin(rank); });
    });
  }
  SimMembership& job;
  std::vector<std::int64_t> begun;
  std::vector<bool> stopped;
};

TEST(Membership, ARequestToStopEndsAllWorkersAfterTheSameIteration) {
  for (const std::uint64_t seed : seeds(200)) {
    runtime::sim::SimOptions world;
    world.seed = seed;
    world.latency = seed % 2 == 0 ? 20us : 2ms;
    world.task_jitter_max = 300us;
    SimMembership job({.workers = 4, .world = world});
    ASSERT_TRUE(job.run_to_start());
    Runners runners(job, 4);
    for (int rank = 0; rank < 4; ++rank) runners.begin(rank);
    job.world().run_for(std::chrono::microseconds(seed * 373 % 50'000));
    job.coordinator().request_stop();
    job.world().run_for(1s);
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_TRUE(runners.stopped[static_cast<std::size_t>(rank)]) << replay(seed);
      EXPECT_EQ(runners.begun[static_cast<std::size_t>(rank)], runners.begun[0]) << replay(seed) << ", rank " << rank;
    }
  }
}

TEST(Membership, ARequestToStopWhileSomebodyIsAwaitedEndsTheJobAtOnce) {
  SimMembership job({.workers = 3, .never_join = {1}});
  job.world().run_for(1s);
  ASSERT_FALSE(job.started);
  job.coordinator().request_stop();
  ASSERT_TRUE(job.world().run_until([&] { return job.state(0).failed && job.state(2).failed; }, 2s));
  EXPECT_EQ(job.failed->code, ErrorCode::kAborted);
  EXPECT_THAT(job.state(2).failed->message, HasSubstr("interrupted before the training began"));
}

TEST(Membership, RandomDeathsAtAnyMomentAreAlwaysNoticed) {
  for (const std::uint64_t seed : seeds(300)) {
    runtime::sim::SimOptions world;
    world.seed = seed;
    SimMembership job({.workers = 3, .world = world});
    // From before the first connection until well after the start.
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 40'000));
    const int victim = static_cast<int>(seed % 3);
    job.world().kill(job.member(victim));
    // Who dies before it has joined is only missed.
    const bool ended = job.run_to_failure(130s);
    ASSERT_TRUE(ended) << replay(seed);
    EXPECT_THAT(job.failed->message, HasSubstr("rank " + std::to_string(victim))) << replay(seed);
  }
}

}  // namespace
}  // namespace poseidon::test
