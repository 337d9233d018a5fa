// What swarms of seeded jobs in virtual time have in common: how a job is disturbed, and what must hold of it all the same.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "support/seeds.h"
#include "support/sim_cluster.h"

namespace poseidon::test {

// The same job in an unruly world.
inline SimJob unruly(SimJob job, std::uint64_t seed) {
  using namespace std::chrono_literals;
  job.world.seed = seed;
  job.world.task_jitter_max = 20us;
  job.world.shuffle_delay_max = seed % 3 == 0 ? 5ms : 300us;
  job.world.interleave = seed % 4 >= 2;
  job.world.bytes_per_second = seed % 2 == 0 ? 1e9 : 2e7;
  job.world.latency = seed % 5 == 0 ? 1ms : 10us;
  job.window_bytes = seed % 7 == 0 ? 1 : 200'000;
  return job;
}

// 2 to 4 lanes for each member, in which also small tensors lie on several, or a lane has nothing to do.
inline void deal_to_several_lanes(SimJob& job, std::uint64_t seed) {
  job.deal.lanes = 2 + seed % 3;
  job.deal.whole_bytes_max = seed % 2 == 0 ? 0 : 50'000;
}

// Any shares for so many nodes; some of them serve nothing.
inline void give_any_shares(SimJob& job, std::size_t nodes, std::mt19937_64& random) {
  std::vector<std::uint32_t>& shares = job.script.plan.server_shares;
  shares.resize(nodes);
  for (std::uint32_t& share : shares) share = random() % 3 == 0 ? 0 : static_cast<std::uint32_t>(random() % 1'000'001);
  shares[random() % shares.size()] = 1000;
}

// All replicas are equal, and as near to what one loop without an engine gives.
inline void expect_what_one_loop_gives(const SimJob& job, const SimResult& result, double tolerance) {
  ASSERT_TRUE(result.finished) << result.trouble;
  for (std::size_t rank = 1; rank < result.parameters.size(); ++rank) {
    ASSERT_EQ(result.parameters[rank], result.parameters[0]) << "rank " << rank << " has other parameters than rank 0";
  }
  const auto right = train_alone(job.script);
  for (std::size_t t = 0; t < right.size(); ++t) {
    for (std::size_t i = 0; i < right[t].size(); ++i) {
      ASSERT_NEAR(result.parameters[0][t][i], right[t][i], tolerance) << job.script.model.tensors[t].name << "[" << i << "]";
    }
  }
}

// Problems 1 to `problems` again and again, each time disturbed in another way: all give the bits of the quiet run.
inline void expect_the_same_bits(std::uint64_t runs, std::uint64_t problems,
                                 const std::function<SimJob(std::uint64_t problem)>& quiet_job,
                                 const std::function<void(SimJob&, std::uint64_t seed)>& disturb) {
  std::map<std::uint64_t, std::vector<std::vector<float>>> right;
  for (const std::uint64_t seed : seeds(runs)) {
    const std::uint64_t problem = 1 + seed % problems;
    const SimJob quiet = quiet_job(problem);
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

// One seed is one run, to the last event.
inline void expect_one_run(const SimJob& job, std::uint64_t seed) {
  const SimResult a = run(job);
  const SimResult b = run(job);
  EXPECT_EQ(a.event_digest, b.event_digest) << "seed " << seed;
  EXPECT_EQ(a.time, b.time);
}

}  // namespace poseidon::test
