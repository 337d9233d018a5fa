// Many seeded runs of whole jobs in virtual time: whatever the order in which frames and tasks come, the parameters are the
// same in every bit, and right.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>

#include "support/seeds.h"
#include "support/sim_cluster.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;

constexpr int kWorkerCounts[] = {1, 2, 3, 4, 5, 8};

SimJob quiet_job(std::uint64_t problem) {
  SimJob job;
  TrainingScript& script = job.script;
  script.problem = problem;
  script.model = random_model(problem, 300'000);
  const int workers = kWorkerCounts[problem % std::size(kWorkerCounts)];
  script.plan = random_plan(script.model, workers, problem * 31);
  script.absent_probability = problem % 3 == 0 ? 0.3 : 0;
  script.short_batch_probability = problem % 4 == 0 ? 0.5 : 0;
  return job;
}

// The same job in an unruly world.
SimJob unruly(SimJob job, std::uint64_t seed) {
  job.world.seed = seed;
  job.world.task_jitter_max = 20us;
  job.world.shuffle_delay_max = seed % 3 == 0 ? 5ms : 300us;
  job.world.bytes_per_second = seed % 2 == 0 ? 1e9 : 2e7;
  job.world.latency = seed % 5 == 0 ? 1ms : 10us;
  job.window_bytes = seed % 7 == 0 ? 1 : 200'000;
  return job;
}

void expect_equal_replicas(const SimResult& result) {
  for (std::size_t rank = 1; rank < result.parameters.size(); ++rank) {
    ASSERT_EQ(result.parameters[rank], result.parameters[0]) << "rank " << rank << " has other parameters than rank 0";
  }
}

TEST(Swarm, AQuietRunGivesWhatOneLoopWithoutAnEngineGives) {
  for (const std::uint64_t problem : seeds(40)) {
    SCOPED_TRACE("problem " + std::to_string(problem));
    const SimJob job = quiet_job(problem);
    const SimResult result = run(job);
    ASSERT_TRUE(result.finished) << result.trouble;
    expect_equal_replicas(result);
    const auto right = train_alone(job.script);
    for (std::size_t t = 0; t < right.size(); ++t) {
      for (std::size_t i = 0; i < right[t].size(); ++i) {
        // Float32 sums of at most 8 x 6 products of numbers below 2, over three iterations.
        ASSERT_NEAR(result.parameters[0][t][i], right[t][i], 2e-5) << job.script.model.tensors[t].name << "[" << i << "]";
      }
    }
  }
}

// Problems again and again, each time disturbed in another way: all give the bits of the quiet run.
void expect_the_bits_of_the_quiet_run(std::uint64_t runs, const std::function<void(SimJob&, std::uint64_t problem)>& change,
                                      const std::function<void(SimJob&, std::uint64_t seed)>& disturb) {
  constexpr std::uint64_t kProblems = 24;
  std::map<std::uint64_t, std::vector<std::vector<float>>> right;
  for (const std::uint64_t seed : seeds(runs)) {
    const std::uint64_t problem = 1 + seed % kProblems;
    SimJob quiet = quiet_job(problem);
    change(quiet, problem);
    if (!right.contains(problem)) {
      const SimResult calm = run(quiet);
      ASSERT_TRUE(calm.finished) << calm.trouble;
      right[problem] = calm.parameters[0];
    }
    SimJob job = unruly(quiet, seed);
    disturb(job, seed);
    const SimResult result = run(job);
    ASSERT_TRUE(result.finished) << replay(seed) << ": " << result.trouble;
    for (const auto& parameters : result.parameters) {
      ASSERT_EQ(parameters, right[problem]) << replay(seed);
    }
  }
}

TEST(Swarm, ShuffledArrivalNeverChangesABit) {
  expect_the_bits_of_the_quiet_run(2400, [](SimJob&, std::uint64_t) {}, [](SimJob&, std::uint64_t) {});
}

TEST(Swarm, ShuffledArrivalNeverChangesABitOnANarrowWire) {
  const auto narrow = [](SimJob& job, std::uint64_t problem) {
    job.script.plan.wire = problem % 2 == 0 ? DType::kBFloat16 : DType::kFloat16;
  };
  expect_the_bits_of_the_quiet_run(600, narrow, [](SimJob&, std::uint64_t) {});
}

// Any shares on the workers and on up to four dedicated servers; some of them serve nothing.
void serve_anyhow(SimJob& job, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint32_t>& shares = job.script.plan.server_shares;
  shares.resize(static_cast<std::size_t>(job.script.plan.workers) + random() % 5);
  for (std::uint32_t& share : shares) share = random() % 3 == 0 ? 0 : static_cast<std::uint32_t>(random() % 1'000'001);
  shares[random() % shares.size()] = 1000;
}

TEST(Swarm, TheSizeOfChunksNeverChangesABit) {
  expect_the_bits_of_the_quiet_run(600, [](SimJob&, std::uint64_t) {}, [](SimJob& job, std::uint64_t seed) {
    job.script.plan.chunk_bytes = 4096u << seed % 9;  // smaller than any plan is given, so that tensors this small are cut
    if (seed % 2 == 0) serve_anyhow(job, seed);
  });
}

TEST(Swarm, WhoServesNeverChangesABit) {
  expect_the_bits_of_the_quiet_run(600, [](SimJob&, std::uint64_t) {}, serve_anyhow);
}

// 2 to 4 lanes for each member, in which also small tensors lie on several, or a lane has nothing to do.
void deal_to_several_lanes(SimJob& job, std::uint64_t seed) {
  job.deal.lanes = 2 + seed % 3;
  job.deal.whole_bytes_max = seed % 2 == 0 ? 0 : 50'000;
}

TEST(Swarm, LanesNeverChangeABit) {
  expect_the_bits_of_the_quiet_run(1200, [](SimJob&, std::uint64_t) {}, deal_to_several_lanes);
}

TEST(Swarm, LanesWithDedicatedServersAndANarrowWireNeverChangeABit) {
  const auto narrow = [](SimJob& job, std::uint64_t problem) {
    if (problem % 2 == 0) job.script.plan.wire = DType::kBFloat16;
  };
  expect_the_bits_of_the_quiet_run(600, narrow, [](SimJob& job, std::uint64_t seed) {
    deal_to_several_lanes(job, seed);
    serve_anyhow(job, seed);
  });
}

TEST(Swarm, LanesMoveTheBytesThatOneMoves) {
  for (const std::uint64_t seed : seeds(20)) {
    const SimJob job = quiet_job(seed);
    SimJob on_several = job;
    deal_to_several_lanes(on_several, seed);
    const SimResult one = run(job);
    const SimResult several = run(on_several);
    ASSERT_TRUE(several.finished) << several.trouble;
    for (std::size_t rank = 0; rank < one.tensor_bytes.size(); ++rank) {
      for (std::size_t t = 0; t < one.tensor_bytes[rank].size(); ++t) {
        EXPECT_EQ(several.tensor_bytes[rank][t].sent, one.tensor_bytes[rank][t].sent) << replay(seed);
        EXPECT_EQ(several.tensor_bytes[rank][t].received, one.tensor_bytes[rank][t].received) << replay(seed);
      }
    }
  }
}

// Among so many a model is cut as one line, and credit waits for frames to go along with.
TEST(Swarm, AmongMoreThanSixtyFourWorkersNoBitChangesEither) {
  for (const std::uint64_t seed : seeds(3)) {
    SimJob quiet = quiet_job(seed);
    quiet.script.model = random_model(seed, 60'000);
    quiet.script.plan = random_plan(quiet.script.model, 66 + static_cast<int>(seed % 20), seed * 31);
    const SimResult calm = run(quiet);
    ASSERT_TRUE(calm.finished) << calm.trouble;
    expect_equal_replicas(calm);
    const auto right = train_alone(quiet.script);
    for (std::size_t t = 0; t < right.size(); ++t) {
      for (std::size_t i = 0; i < right[t].size(); ++i) {
        // Up to 86 addends where the swarm above has 8.
        ASSERT_NEAR(calm.parameters[0][t][i], right[t][i], 2e-4) << quiet.script.model.tensors[t].name << "[" << i << "]";
      }
    }
    const SimResult result = run(unruly(quiet, seed));
    ASSERT_TRUE(result.finished) << replay(seed) << ": " << result.trouble;
    for (const auto& parameters : result.parameters) ASSERT_EQ(parameters, calm.parameters[0]) << replay(seed);
  }
}

TEST(Swarm, OneSeedIsOneRun) {
  for (const std::uint64_t seed : seeds(10)) {
    const SimJob job = unruly(quiet_job(seed), seed);
    const SimResult a = run(job);
    const SimResult b = run(job);
    EXPECT_EQ(a.event_digest, b.event_digest) << "seed " << seed;
    EXPECT_EQ(a.time, b.time);
  }
  SimJob laned = unruly(quiet_job(3), 3);
  deal_to_several_lanes(laned, 3);
  EXPECT_EQ(run(laned).event_digest, run(laned).event_digest);
  EXPECT_NE(run(unruly(quiet_job(1), 1)).event_digest, run(unruly(quiet_job(1), 2)).event_digest);
}

TEST(Swarm, BytesInFlightStayWithinTheWindow) {
  for (const std::uint64_t seed : seeds(30)) {
    SimJob job = unruly(quiet_job(seed), seed);
    if (seed % 2 == 0) deal_to_several_lanes(job, seed);  // the window is one over all of them
    const SimResult result = run(job);
    ASSERT_TRUE(result.finished) << result.trouble;
    const std::size_t two_pieces_each = 2 * static_cast<std::size_t>(job.script.plan.workers - 1) * wire::kPieceBytes;
    EXPECT_LE(result.in_flight_max, job.window_bytes + two_pieces_each) << "seed " << seed;
  }
}

}  // namespace
}  // namespace poseidon::test
