// Jobs whose workers train another model from some iteration on, in virtual time: what they have got to know while they trained
// the first one provisionally.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/seeds.h"
#include "support/sim_training.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

SimTrainingOptions random_job(std::uint64_t problem, int workers) {
  SimTrainingOptions options;
  options.script.problem = problem;
  options.script.model = random_model(problem, 100'000);
  options.script.plan = uniform_plan(options.script.model, workers, Scheme::kPs);
  options.script.iterations = 10;
  options.script.absent_probability = problem % 3 == 0 ? 0.3 : 0;
  options.script.short_batch_probability = problem % 4 == 0 ? 0.5 : 0;
  options.renew_at = 1 + problem % 6;
  return options;
}

SimTrainingOptions unruly(SimTrainingOptions options, std::uint64_t seed) {
  options.world.seed = seed;
  options.world.task_jitter_max = 20us;
  options.world.shuffle_delay_max = seed % 3 == 0 ? 3ms : 300us;
  options.world.bytes_per_second = seed % 2 == 0 ? 1e9 : 5e7;
  options.world.latency = seed % 5 == 0 ? 1ms : 10us;
  return options;
}

// What one loop gives that trains densely at first, and then by the plan that was made.
void expect_right(const SimTraining& job, int workers) {
  const std::vector<std::vector<double>> right = train_alone(job.script_as_run());
  for (int rank = 0; rank < workers; ++rank) {
    ASSERT_EQ(job.parameters(rank), job.parameters(0)) << "rank " << rank;
    ASSERT_EQ(job.plans(rank), job.plans(0)) << "rank " << rank << " ran an iteration under another plan";
  }
  for (std::size_t t = 0; t < right.size(); ++t) {
    for (std::size_t i = 0; i < right[t].size(); ++i) ASSERT_NEAR(job.parameters(0)[t][i], right[t][i], 1e-4) << "tensor " << t;
  }
}

TEST(Renewal, TrainsTheNewModelFromThatIterationOnWhereverItWasLearnt) {
  for (const std::uint64_t seed : seeds(80)) {
    SCOPED_TRACE(replay(seed));
    const int workers = static_cast<int>(1 + seed % 4);
    SimTrainingOptions options = unruly(random_job(1 + seed % 20, workers), seed);
    options.servers = workers > 1 ? static_cast<int>(seed % 3) : 0;
    const plan::Plan wanted = random_plan(options.script.model, workers, seed);
    options.coordinator.plan_json = plan::to_json(wanted);
    SimTraining job(options);
    ASSERT_TRUE(job.run_to_end(1000s));
    ASSERT_FALSE(job.failed) << job.failed->message;
    ASSERT_EQ(job.versions.size(), 2u);
    for (std::size_t l = 0; l < wanted.layers.size(); ++l) {
      ASSERT_EQ(job.versions[1].plan.layers[l].scheme, wanted.layers[l].scheme) << "the plan that was given is about the new model";
    }
    ASSERT_EQ(job.plans(0).size(), 10u);
    expect_right(job, workers);
  }
}

// Links are measured for the new model, and its layers may travel as factors.
TEST(Renewal, MeasuresAndChoosesForTheNewModel) {
  SimTrainingOptions options = random_job(2, 3);
  options.script.short_batch_probability = 0;
  options.coordinator.schemes = plan::parse_scheme_request("sfb").value();
  SimTraining job(options);
  ASSERT_TRUE(job.run_to(0));
  EXPECT_TRUE(job.links.empty()) << "nothing is measured for a provisional model";
  EXPECT_THAT(job.plans(0).front(), Not(HasSubstr("sfb")));
  ASSERT_TRUE(job.run_to_end(1000s));
  ASSERT_FALSE(job.failed) << job.failed->message;
  EXPECT_FALSE(job.links.empty());
  EXPECT_THAT(job.plans(0).back(), HasSubstr("sfb"));
  expect_right(job, 3);
}

TEST(Renewal, ARequestToStopMeanwhileEndsAllAfterTheSameIteration) {
  int stopped_before_it = 0;
  for (const std::uint64_t seed : seeds(100)) {
    SCOPED_TRACE(replay(seed));
    SimTraining job(unruly(random_job(1 + seed % 20, 3), seed));
    ASSERT_TRUE(job.run_to(0));
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 30'000));
    job.coordinator().request_stop();
    ASSERT_TRUE(job.run_to_end(1000s));
    ASSERT_FALSE(job.failed) << job.failed->message;
    for (int rank = 1; rank < 3; ++rank) {
      ASSERT_EQ(job.plans(rank).size(), job.plans(0).size());
      ASSERT_EQ(job.parameters(rank), job.parameters(0));
    }
    stopped_before_it += job.versions.size() == 1 ? 1 : 0;
  }
  if (seeds(100).size() >= 100) {
    EXPECT_GT(stopped_before_it, 5);
    EXPECT_LT(stopped_before_it, 95);
  }
}

// A change of plan that was being agreed on is forgotten.
TEST(Renewal, OvertakesAChangeOfPlan) {
  for (const std::uint64_t seed : seeds(60)) {
    SCOPED_TRACE(replay(seed));
    SimTrainingOptions options = unruly(random_job(1 + seed % 20, 3), seed);
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(*options.renew_at - 1));
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 3'000));
    job.coordinator().change_plan(uniform_plan(options.script.model, 3, Scheme::kPs), "for a test");
    ASSERT_TRUE(job.run_to_end(1000s));
    ASSERT_FALSE(job.failed) << job.failed->message;
    for (int rank = 1; rank < 3; ++rank) ASSERT_EQ(job.parameters(rank), job.parameters(0));
    ASSERT_EQ(job.plans(0).size(), 10u);
  }
}

TEST(Renewal, OfDifferentModelsIsRefusedWithTheParameter) {
  SimTrainingOptions options = random_job(2, 3);
  Model other = options.script.model;
  other.tensors[1].name = "another";
  options.renewed_otherwise[2] = other;
  SimTraining job(options);
  ASSERT_TRUE(job.run_to_end(1000s));
  ASSERT_TRUE(job.failed.has_value());
  EXPECT_EQ(job.failed->code, ErrorCode::kRefused);
  EXPECT_THAT(job.failed->message, AllOf(HasSubstr("rank 2"), HasSubstr("another"), HasSubstr(options.script.model.tensors[1].name)));
}

TEST(Renewal, WithValuesOfOtherTensorsIsRefusedWithTheTensor) {
  SimTrainingOptions options = random_job(2, 3);
  const std::string tensor = options.script.model.tensors[1].name;
  for (const bool others_only : {false, true}) {
    options.renewed_values = {{0, {TensorId{0}}}, {1, {TensorId{0}}}, {2, {TensorId{0}}}};
    options.renewed_values[others_only ? 2 : 0].push_back(TensorId{1});
    if (!others_only) options.renewed_values[1].push_back(TensorId{1});
    SimTraining job(options);
    ASSERT_TRUE(job.run_to_end(1000s));
    ASSERT_TRUE(job.failed.has_value());
    EXPECT_EQ(job.failed->code, ErrorCode::kInvalid);
    EXPECT_THAT(job.failed->message, AllOf(HasSubstr(others_only ? "values: rank 2" : "values: rank 0"), HasSubstr("has some for " + tensor + ", rank ")));
  }
}

TEST(Renewal, WhoeverDoesNotComeIsNamed) {
  SimTrainingOptions options = random_job(2, 3);
  options.never_renews = {1};
  options.coordinator.settle_max = 20s;
  SimTraining job(options);
  ASSERT_TRUE(job.run_to_end(1000s));
  ASSERT_TRUE(job.failed.has_value());
  EXPECT_EQ(job.failed->code, ErrorCode::kTimeout);
  EXPECT_THAT(job.failed->message, AllOf(HasSubstr("gave up waiting for rank 1"), HasSubstr("to come to iteration 3, from which another model")));
}

TEST(Renewal, AWorkerThatDiesMeanwhileIsNamed) {
  for (const std::uint64_t seed : seeds(40)) {
    SCOPED_TRACE(replay(seed));
    SimTrainingOptions options = unruly(random_job(1 + seed % 20, 3), seed);
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(*options.renew_at - 1));
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 10'000));
    job.world().kill(job.member(1));
    ASSERT_TRUE(job.run_to_end(1000s));
    ASSERT_TRUE(job.failed || job.finished);
    if (job.failed) {
      EXPECT_THAT(job.failed->message, HasSubstr("rank 1"));
    }
  }
}

}  // namespace
}  // namespace poseidon::test
