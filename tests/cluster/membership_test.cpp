// Jobs that begin, end and meet faults, in virtual time. The names say which node, which fault, what must follow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/seeds.h"
#include "support/sim_job.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Who dies is noticed within this time; who falls silent, within the silence that is allowed and one interval more, and then told.
constexpr std::chrono::nanoseconds kDeathNoticed = 2s;
constexpr std::chrono::nanoseconds kSilenceNoticed = 3500ms;

// Everybody who lives has the same error within `limit`, and it contains `text`.
void expect_all_fail(SimMembership& job, int workers, const std::string& text, std::chrono::nanoseconds limit = kDeathNoticed) {
  ASSERT_TRUE(job.run_to_failure(limit)) << "somebody has not noticed within " << std::chrono::duration<double>(limit).count() << " s";
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

TEST(Membership, TheWireIsInThePlanOfAll) {
  SimMembershipOptions options{.workers = 3};
  options.coordinator.wire = DType::kBFloat16;
  SimMembership job(options);
  ASSERT_TRUE(job.run_to_start());
  for (int rank = 0; rank < 3; ++rank) EXPECT_THAT(job.state(rank).plan, HasSubstr("\"wire\": \"bfloat16\""));
  EXPECT_EQ(job.plan->wire, DType::kBFloat16);
}

TEST(Membership, AGivenPlanKeepsItsWireAndNoOtherCanBeAskedFor) {
  const auto options_of = [](std::optional<DType> of_plan, std::optional<DType> wire) {
    plan::Plan plan{2, {{"conv1", Scheme::kPs, {}, Rank{0}}, {"ip1", Scheme::kPs, {}, Rank{0}}}};
    plan.wire = of_plan;
    SimMembershipOptions options{.workers = 2};
    options.coordinator.plan_json = plan::to_json(plan);
    options.coordinator.plan_name = "plan.json";
    options.coordinator.wire = wire;
    return options;
  };
  for (const std::optional<DType> wire : {std::optional<DType>(), std::optional(DType::kFloat16)}) {
    SimMembership job(options_of(DType::kFloat16, wire));
    ASSERT_TRUE(job.run_to_start()) << (job.failed ? job.failed->message : "");
    EXPECT_EQ(job.plan->wire, DType::kFloat16);
  }
  SimMembership other(options_of(DType::kFloat16, DType::kBFloat16));
  other.run_to_start();
  ASSERT_TRUE(other.failed);
  EXPECT_EQ(other.failed->code, ErrorCode::kInvalid);
  EXPECT_EQ(other.failed->message, "plan.json: in this plan gradients travel as float16, not as bfloat16; a plan fixes every bit, so "
                                   "repeat it without --wire");
  SimMembership none(options_of(std::nullopt, DType::kBFloat16));
  none.run_to_start();
  ASSERT_TRUE(none.failed);
  EXPECT_THAT(none.failed->message, HasSubstr("gradients travel as they are, not as bfloat16"));
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

TEST(Membership, AGatheringThatTakesLongSaysWhoIsLateAndEndsAtItsLimit) {
  SimMembershipOptions options{.workers = 3};
  options.coordinator.settle_max = 60s;
  SimMembership job(options);
  ASSERT_TRUE(job.run_to_start());
  job.waits.clear();
  job.worker(1).gather("b");
  job.world().run_for(3s);
  ASSERT_FALSE(job.waits.empty());
  EXPECT_THAT(job.waits[0], HasSubstr("waiting for rank 0 and rank 2 to come to where rank 1 waits for all workers, since 2"));
  job.worker(0).gather("a");
  job.world().run_for(20s);
  EXPECT_THAT(job.waits.back(), HasSubstr("waiting for rank 2 to come to where rank 0 and rank 1 wait for all workers, since 1"));
  EXPECT_LE(job.waits.size(), 5u) << "told now and then, not all the time";
  EXPECT_FALSE(job.failed);
  job.world().run_for(60s);
  ASSERT_TRUE(job.failed);
  EXPECT_THAT(job.failed->message, HasSubstr("gave up waiting for rank 2 to come to where"));
}

TEST(Membership, AWorkerThatDoesNotLeaveIsNamedWhileTheOthersWait) {
  SimMembership job({.workers = 3, .servers = 1});
  ASSERT_TRUE(job.run_to_start());
  job.waits.clear();
  job.world().run_for(20s);
  EXPECT_TRUE(job.waits.empty()) << "nobody waits while all work";
  job.worker(1).leave();
  job.world().run_for(1900ms);
  EXPECT_TRUE(job.waits.empty());
  job.worker(0).leave();
  job.world().run_for(600ms);
  ASSERT_EQ(job.waits.size(), 1u);
  EXPECT_THAT(job.waits[0], HasSubstr("waiting for rank 2 (pid 102 on node2) to leave since 2."));
  job.world().run_for(100s);
  EXPECT_LE(job.waits.size(), 7u) << "told now and then, not all the time";
  EXPECT_FALSE(job.failed) << "it may have reasons";
  job.worker(2).leave();
  job.world().run_for(1s);
  EXPECT_TRUE(job.finished);
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

TEST(Membership, AWorkerWhoseHostFallsSilentIsNamedOnceTheSilenceIsTooLong) {
  SimMembership job({.workers = 3});
  ASSERT_TRUE(job.run_to_start());
  for (const Member other : {job.member(0), job.member(2), runtime::kCoordinator}) job.world().cut(job.member(1), other);
  expect_all_fail(job, 0, "rank 1 (pid 101 on node1) has not been heard of", kSilenceNoticed);
  EXPECT_THAT(job.state(0).failed->message, HasSubstr("rank 1"));
  EXPECT_THAT(job.state(2).failed->message, HasSubstr("rank 1"));
  EXPECT_THAT(job.state(1).failed->message, HasSubstr("launcher has not been heard of")) << "it cannot know more";
}

TEST(Membership, AStoppedWorkerIsNoticed) {
  SimMembership job({.workers = 2});
  ASSERT_TRUE(job.run_to_start());
  job.world().freeze(job.member(1));
  ASSERT_TRUE(job.world().run_until([&] { return job.failed.has_value(); }, job.world().now() + kSilenceNoticed));
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

TEST(Membership, AWorkerWithOtherLanesIsRefused) {
  SimMembership job({.workers = 3, .lanes = {2, 2, 1}});
  job.world().run_until([&] { return job.failed.has_value(); }, 10s);
  ASSERT_TRUE(job.failed);
  EXPECT_EQ(job.failed->code, ErrorCode::kRefused);
  EXPECT_THAT(job.failed->message, HasSubstr("rank 2 (pid 102 on node2) has 1 lane, "));
  EXPECT_THAT(job.failed->message, HasSubstr("has 2 lanes; start all workers with the same --lanes"));
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

TEST(DedicatedServers, JoinLearnWhatIsTrainedAndGoWhenAllWorkersHaveLeft) {
  SimMembership job({.workers = 4, .servers = 2});
  ASSERT_TRUE(job.run_to_start());
  EXPECT_EQ(job.state(4).epoch.members[5].text(), "server 1 (pid 105 on node5)");
  EXPECT_EQ(job.plan->server_shares, (std::vector<std::uint32_t>{100'000, 100'000, 100'000, 100'000, 300'000, 300'000}))
      << "links alike: the published shares";
  for (int node = 0; node < 6; ++node) {
    EXPECT_EQ(job.state(node).plan, job.state(0).plan);
    EXPECT_EQ(job.state(node).model.has_value(), node >= 4) << "workers know what they train";
  }
  EXPECT_EQ(job.state(5).model->tensors.size(), small_model().tensors.size());
  for (int rank = 0; rank < 3; ++rank) job.worker(rank).leave();
  job.world().run_for(5s);
  EXPECT_FALSE(job.finished) << "rank 3 has not left";
  job.worker(3).leave();
  job.world().run_for(1s);
  EXPECT_TRUE(job.finished);
  for (int node = 0; node < 6; ++node) {
    EXPECT_TRUE(job.state(node).goodbye) << node;
    EXPECT_FALSE(job.state(node).failed) << node;
  }
}

TEST(DedicatedServers, AloneServeAllWhereTheWorkersDoNot) {
  cluster::CoordinatorOptions options;
  options.colocated = false;
  SimMembership job({.workers = 3, .servers = 2, .coordinator = options});
  ASSERT_TRUE(job.run_to_start());
  EXPECT_EQ(job.plan->server_shares, (std::vector<std::uint32_t>{0, 0, 0, 500'000, 500'000}));
}

TEST(DedicatedServers, GetSharesByTheRatesOfAllLinks) {
  // Worker 1 and server 0 have a tenth of the others' rate: t = (1 + 3/2) / (3/2 + 1.1/4) by the formula of server_shares.h.
  runtime::sim::SimOptions world;
  world.bytes_per_second = 1e9;
  world.bytes_per_second_of = {{Member{1}, 1e8}, {Member{4}, 1e8}};
  SimMembership job({.workers = 4, .servers = 2, .world = world});
  ASSERT_TRUE(job.run_to_start());
  const double level = 2.5 / (1.5 + 1.1 / 4);
  const std::vector<double> expected = {(level - 1) / 2, 0, (level - 1) / 2, (level - 1) / 2, level / 40, level / 4};
  for (std::size_t node = 0; node < 6; ++node) EXPECT_NEAR(job.plan->server_shares[node] / 1e6, expected[node], 0.01) << node;
}

TEST(DedicatedServers, AreNotNeededForSharesByRates) {
  runtime::sim::SimOptions world;
  world.bytes_per_second = 1e9;
  world.bytes_per_second_of = {{Member{2}, 1e8}};
  SimMembership slow({.workers = 3, .world = world});
  ASSERT_TRUE(slow.run_to_start());
  EXPECT_EQ(slow.plan->server_shares, (std::vector<std::uint32_t>{500'000, 500'000, 0}));
  world.bytes_per_second_of = {{Member{2}, 0.8e9}};
  SimMembership noisy({.workers = 3, .world = world});
  ASSERT_TRUE(noisy.run_to_start());
  EXPECT_TRUE(noisy.plan->server_shares.empty()) << "a difference that may be noise";
  cluster::CoordinatorOptions options;
  options.link_bytes_per_second = 1e9;
  world.bytes_per_second_of = {{Member{2}, 1e8}};
  SimMembership told({.workers = 3, .world = world, .coordinator = options});
  ASSERT_TRUE(told.run_to_start());
  EXPECT_TRUE(told.plan->server_shares.empty()) << "what the user says counts";
}

TEST(DedicatedServers, ThatDieOrFallSilentAreNamedToAll) {
  for (const bool dies : {true, false}) {
    SimMembership job({.workers = 3, .servers = 2});
    ASSERT_TRUE(job.run_to_start());
    job.world().run_for(10s);
    ASSERT_FALSE(job.failed);
    if (dies) {
      job.world().kill(job.member(4));
      expect_all_fail(job, 5, "server 1 (pid 104 on node4)");
    } else {
      for (const Member other : {job.member(0), job.member(1), job.member(2), job.member(3), runtime::kCoordinator}) {
        job.world().cut(job.member(4), other);
      }
      expect_all_fail(job, 0, "server 1 (pid 104 on node4) has not been heard of", kSilenceNoticed);
      EXPECT_THAT(job.state(0).failed->message, HasSubstr("server 1"));
      EXPECT_THAT(job.state(3).failed->message, HasSubstr("server 1"));
    }
  }
}

TEST(DedicatedServers, HearOfAWorkersDeathAndOfTheLaunchers) {
  SimMembership job({.workers = 3, .servers = 1});
  ASSERT_TRUE(job.run_to_start());
  job.world().kill(job.member(1));
  expect_all_fail(job, 4, "rank 1 (pid 101");
  SimMembership orphan({.workers = 2, .servers = 1});
  ASSERT_TRUE(orphan.run_to_start());
  orphan.world().kill(runtime::kCoordinator);
  ASSERT_TRUE(orphan.run_to_failure(2s));
  EXPECT_THAT(orphan.state(2).failed->message, HasSubstr("the launcher is gone"));
}

TEST(DedicatedServers, ThatNeverJoinAreNamed) {
  cluster::CoordinatorOptions options;
  options.join_max = 30s;
  SimMembership job({.workers = 2, .servers = 2, .coordinator = options, .never_join = {3}});
  ASSERT_TRUE(job.world().run_until([&] { return job.failed.has_value(); }, 40s));
  EXPECT_THAT(job.failed->message, HasSubstr("gave up waiting for server 1 to join"));
}

TEST(DedicatedServers, TakeNoPartInWhatWorkersAgreeOn) {
  SimMembership job({.workers = 3, .servers = 2});
  ASSERT_TRUE(job.run_to_start());
  for (int rank = 0; rank < 3; ++rank) job.worker(rank).gather(std::to_string(rank));
  job.world().run_for(100ms);
  EXPECT_EQ(job.state(1).gathered, (std::vector<std::vector<std::string>>{{"0", "1", "2"}}));
  EXPECT_TRUE(job.state(3).gathered.empty());
  Runners runners(job, 3);
  for (int rank = 0; rank < 3; ++rank) runners.begin(rank);
  job.world().run_for(20ms);
  job.coordinator().request_stop();
  job.world().run_for(1s);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(runners.stopped[static_cast<std::size_t>(rank)]);
    EXPECT_EQ(runners.begun[static_cast<std::size_t>(rank)], runners.begun[0]);
  }
  // What only workers may say is passed over.
  job.worker(3).note("hello");
  job.worker(3).leave();
  job.world().run_for(1s);
  EXPECT_TRUE(job.notes.empty());
  EXPECT_FALSE(job.finished);
  for (int rank = 0; rank < 3; ++rank) job.worker(rank).leave();
  job.world().run_for(1s);
  EXPECT_TRUE(job.finished);
}

TEST(DedicatedServers, AreGivenSharesWhereAPlanHasNoneAndRefusedWhereItHasOthers) {
  const std::string layers = R"("layers": [{"name": "conv1", "scheme": "ps"}, {"name": "ip1", "scheme": "ps"}]})";
  cluster::CoordinatorOptions options;
  options.plan_json = R"({"poseidon_plan": 1, "workers": 3, )" + layers;
  SimMembership without({.workers = 3, .servers = 3, .coordinator = options});
  ASSERT_TRUE(without.run_to_start());
  EXPECT_EQ(without.plan->server_shares, (std::vector<std::uint32_t>{0, 0, 0, 333'334, 333'333, 333'333}));
  options.plan_json = R"({"poseidon_plan": 1, "workers": 3, "server_shares": [1, 1, 1, 7], )" + layers;
  SimMembership with({.workers = 3, .servers = 1, .coordinator = options});
  ASSERT_TRUE(with.run_to_start());
  EXPECT_EQ(with.plan->server_shares, (std::vector<std::uint32_t>{1, 1, 1, 7})) << "what the plan says";
  SimMembership other({.workers = 3, .servers = 2, .coordinator = options});
  other.world().run_until([&] { return other.failed.has_value(); }, 10s);
  ASSERT_TRUE(other.failed);
  EXPECT_THAT(other.failed->message, HasSubstr("it was made for 1 dedicated servers, this job has 2"));
}

TEST(DedicatedServers, RandomDeathsAtAnyMomentAreAlwaysNoticed) {
  for (const std::uint64_t seed : seeds(200)) {
    runtime::sim::SimOptions world;
    world.seed = seed;
    SimMembership job({.workers = 2, .servers = 2, .world = world});
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 40'000));
    const int victim = static_cast<int>(seed % 4);
    job.world().kill(job.member(victim));
    ASSERT_TRUE(job.run_to_failure(130s)) << replay(seed);
    EXPECT_THAT(job.failed->message, HasSubstr(plan::node_name(Rank{victim}, 2))) << replay(seed);
  }
}

}  // namespace
}  // namespace poseidon::test
