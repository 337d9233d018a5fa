// Servers with little staging memory, many seeded jobs in virtual time: whatever the order in which workers send, all end, with
// the same bits, and no server stages more than docs/decisions/0016-a-gate-before-the-staging-memory.md says.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "plan/partition.h"
#include "support/seeds.h"
#include "support/sim_cluster.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kProblems = 12;
constexpr int kWorkerCounts[] = {2, 3, 4, 5};

// Many tensors of one or two pieces a chunk, and some that share frames: workers out of step stage several times what may be in
// flight.
SimJob calm_job(std::uint64_t problem) {
  std::mt19937_64 random(problem);
  const int workers = kWorkerCounts[problem % std::size(kWorkerCounts)];
  SimJob job;
  TrainingScript& script = job.script;
  script.problem = problem;
  for (int layer = 0; layer < 14; ++layer) {
    const std::string name = "layer" + std::to_string(layer);
    const bool is_large = layer == 5;
    const auto weight = static_cast<std::int64_t>(is_large ? 60'000 + random() % 60'000 : 10'000 + random() % 20'000);
    const auto bias = static_cast<std::int64_t>(1 + random() % 900);
    const auto id = static_cast<std::uint32_t>(script.model.tensors.size());
    script.model.tensors.push_back({name + ".weight", {weight}, DType::kFloat32});
    script.model.tensors.push_back({name + ".bias", {bias}, DType::kFloat32});
    script.model.layers.push_back({name, {TensorId{id}, TensorId{id + 1}}, 0});
  }
  const auto id = static_cast<std::uint32_t>(script.model.tensors.size());
  script.model.tensors.push_back({"fc.weight", {20, 30}, DType::kFloat32});
  script.model.layers.push_back({"fc", {TensorId{id}}, 3});
  script.plan = random_plan(script.model, workers, problem * 31);
  script.absent_probability = problem % 3 == 0 ? 0.2 : 0;
  return job;
}

// The same job with little memory, workers out of step, and everything else as the seed says.
SimJob crowded(SimJob job, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto workers = static_cast<std::size_t>(job.script.plan.workers);
  job.world.seed = seed;
  job.world.task_jitter_max = 20us;
  job.world.bytes_per_second = random() % 2 == 0 ? 1e9 : 1e8;
  job.world.latency = random() % 4 == 0 ? 1ms : 10us;
  job.window_bytes = random() % 2 == 0 ? 1 : 160'000;
  job.priorities = random() % 3 != 0;
  job.script.order = static_cast<SubmitOrder>(random() % 3);
  if (random() % 4 != 0) job.script.slow_rank = random() % workers;
  constexpr std::size_t kCaps[] = {0, 1, 50'000, 300'000, 600'000};
  job.staging_bytes_max = kCaps[random() % std::size(kCaps)];
  return job;
}

std::size_t largest_chunk(const SimJob& job, std::size_t rank) {
  std::size_t bytes = 0;
  for (const auto& chunks : plan::partition(job.script.model, job.script.plan)) {
    for (const plan::Chunk& chunk : chunks) {
      if (static_cast<std::size_t>(index(chunk.server)) == rank) bytes = std::max(bytes, chunk.end - chunk.begin);
    }
  }
  return bytes;
}

std::size_t bound(const SimJob& job, std::size_t rank) {
  const auto others = static_cast<std::size_t>(job.script.plan.workers - 1);
  const std::size_t crossing = others * std::max(job.window_bytes, 2 * wire::kPieceBytes);
  return std::max(job.staging_bytes_max, job.staging_bytes_max / 2 + crossing) + 2 * others * largest_chunk(job, rank);
}

class GateSwarm : public ::testing::Test {
 protected:
  // What the job gives when nobody is short of memory.
  const std::vector<std::vector<float>>& right(std::uint64_t problem) {
    if (!right_.contains(problem)) {
      const SimResult calm = run(calm_job(problem));
      EXPECT_TRUE(calm.finished) << calm.trouble;
      right_[problem] = calm.parameters[0];
    }
    return right_[problem];
  }
  void expect_right(const SimResult& result, std::uint64_t problem) {
    ASSERT_TRUE(result.finished) << result.trouble;
    for (const auto& parameters : result.parameters) ASSERT_EQ(parameters, right(problem));
  }

 private:
  std::map<std::uint64_t, std::vector<std::vector<float>>> right_;
};

TEST_F(GateSwarm, StagedBytesStayWithinTheBoundAndAllEnd) {
  std::size_t runs = 0;
  std::size_t runs_that_need_the_gate = 0;
  for (const std::uint64_t seed : seeds(80)) {
    SCOPED_TRACE(replay(seed));
    const std::uint64_t problem = 1 + seed % kProblems;
    SimJob job = crowded(calm_job(problem), seed);
    const SimResult result = run(job);
    ASSERT_NO_FATAL_FAILURE(expect_right(result, problem));
    for (std::size_t rank = 0; rank < result.staging_max.size(); ++rank) {
      ASSERT_LE(result.staging_max[rank], bound(job, rank)) << "rank " << rank << ", cap " << job.staging_bytes_max;
    }
    ++runs;
    SimJob uncapped = job;
    uncapped.staging_bytes_max = SIZE_MAX / 2;
    const SimResult without = run(uncapped);
    for (std::size_t rank = 0; rank < result.staging_max.size(); ++rank) {
      if (without.staging_max[rank] <= bound(job, rank)) continue;
      ++runs_that_need_the_gate;
      break;
    }
  }
  if (runs < 20) return;
  EXPECT_GE(4 * runs_that_need_the_gate, runs) << "too few of the runs would break the bound without a gate";
}

TEST_F(GateSwarm, FramesThatOvertakeEachOtherChangeNothing) {
  for (const std::uint64_t seed : seeds(120)) {
    SCOPED_TRACE(replay(seed));
    const std::uint64_t problem = 1 + seed % kProblems;
    SimJob job = crowded(calm_job(problem), seed);
    job.world.shuffle_delay_max = seed % 3 == 0 ? 5ms : 300us;
    const SimResult result = run(job);
    ASSERT_NO_FATAL_FAILURE(expect_right(result, problem));
  }
}

}  // namespace
}  // namespace poseidon::test
