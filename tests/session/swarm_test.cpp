// Many seeded runs of whole jobs in virtual time: whatever the order in which frames and tasks come, the parameters are the
// same in every bit, and right.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "support/swarm.h"

namespace poseidon::test {
namespace {

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

TEST(Swarm, AQuietRunGivesWhatOneLoopWithoutAnEngineGives) {
  for (const std::uint64_t problem : seeds(40)) {
    SCOPED_TRACE("problem " + std::to_string(problem));
    const SimJob job = quiet_job(problem);
    // Float32 sums of at most 8 x 6 products of numbers below 2, over three iterations.
    expect_what_one_loop_gives(job, run(job), 2e-5);
    if (HasFatalFailure()) return;
  }
}

void expect_the_bits_of_the_quiet_run(std::uint64_t runs, const std::function<void(SimJob&, std::uint64_t problem)>& change,
                                      const std::function<void(SimJob&, std::uint64_t seed)>& disturb) {
  const auto changed = [&](std::uint64_t problem) {
    SimJob job = quiet_job(problem);
    change(job, problem);
    return job;
  };
  expect_the_same_bits(runs, 24, changed, disturb);
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

// On the workers and on up to four dedicated servers.
void serve_anyhow(SimJob& job, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  give_any_shares(job, static_cast<std::size_t>(job.script.plan.workers) + random() % 5, random);
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
    expect_what_one_loop_gives(quiet, calm, 2e-4);  // up to 86 addends where the swarm above has 8
    if (HasFatalFailure()) return;
    const SimResult result = run(unruly(quiet, seed));
    ASSERT_TRUE(result.finished) << replay(seed) << ": " << result.trouble;
    for (const auto& parameters : result.parameters) ASSERT_EQ(parameters, calm.parameters[0]) << replay(seed);
  }
}

TEST(Swarm, OneSeedIsOneRun) {
  for (const std::uint64_t seed : seeds(10)) {
    expect_one_run(unruly(quiet_job(seed), seed), seed);
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
