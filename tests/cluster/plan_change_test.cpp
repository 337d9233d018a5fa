// Jobs that go over to another plan, in virtual time: on all workers before the same iteration, whatever happens meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/seeds.h"
#include "support/sim_training.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

void expect_right(const SimTraining& job, double tolerance) {
  const TrainingScript script = job.script_as_run();
  const auto right = train_alone(script);
  for (int rank = 0; rank < script.plan.workers; ++rank) {
    ASSERT_EQ(job.parameters(rank), job.parameters(0)) << "rank " << rank;
    ASSERT_EQ(job.plans(rank), job.plans(0)) << "rank " << rank << " ran an iteration under another plan";
  }
  for (std::size_t i = 0; i < job.plans(0).size(); ++i) {
    const std::size_t version = plan::version_at(job.versions, script.first + i);
    ASSERT_EQ(job.plans(0)[i], plan::to_json(job.versions[version].plan)) << "iteration " << i;
  }
  for (std::size_t t = 0; t < right.size(); ++t) {
    for (std::size_t i = 0; i < right[t].size(); ++i) {
      ASSERT_NEAR(job.parameters(0)[t][i], right[t][i], tolerance) << script.model.tensors[t].name << "[" << i << "]";
    }
  }
}

SimTrainingOptions random_job(std::uint64_t problem) {
  SimTrainingOptions options;
  options.script.problem = problem;
  options.script.model = random_model(problem, 100'000);
  const int workers = static_cast<int>(2 + problem % 3);
  options.script.plan = uniform_plan(options.script.model, workers, Scheme::kPs);
  options.script.iterations = 12;
  options.script.absent_probability = problem % 3 == 0 ? 0.3 : 0;
  options.script.short_batch_probability = problem % 4 == 0 ? 0.5 : 0;
  options.world.seed = problem;
  options.coordinator.plan_json = plan::to_json(random_plan(options.script.model, workers, problem));
  return options;
}

// Two fully connected layers above a dense one that computes for 3 ms; the link decides what they should travel by.
SimTrainingOptions measured_job() {
  SimTrainingOptions options;
  TrainingScript& script = options.script;
  script.model.tensors = {{"conv.weight", {2'000}, DType::kFloat32}, {"fc1.weight", {128, 128}, DType::kFloat32}, {"fc2.weight", {64, 128}, DType::kFloat32}};
  script.model.layers = {{"conv", {TensorId{0}}, 0}, {"fc1", {TensorId{1}}, 8}, {"fc2", {TensorId{2}}, 8}};
  script.plan = uniform_plan(script.model, 2, Scheme::kPs);
  script.iterations = 1'000'000;
  script.forward_times = {1ms, 100us, 50us};
  options.world.bytes_per_second = 1e9;
  options.flops_per_second = 1e9;
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

TEST(PlanChange, RandomPlansAtRandomMomentsGiveWhatTheSamePlansGiveAgain) {
  int changes = 0;
  int runs = 0;
  for (const std::uint64_t seed : seeds(150)) {
    ++runs;
    const SimTrainingOptions options = unruly(random_job(1 + seed % 20), seed);
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(0));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 3; ++i) {
      job.world().run_for(std::chrono::microseconds(random() % 20'000));
      job.coordinator().change_plan(random_plan(options.script.model, options.script.plan.workers, random()), "for a test");
    }
    ASSERT_TRUE(job.run_to_end(1000s)) << replay(seed);
    ASSERT_FALSE(job.failed) << replay(seed) << ": " << job.failed->message;
    SCOPED_TRACE(replay(seed));
    expect_right(job, 1e-4);
    changes += static_cast<int>(job.changes.size());
    // As --plan repeats it: the same plans, given from the start, in another world.
    SimTrainingOptions again = random_job(1 + seed % 20);
    again.coordinator.plan_json = plan::to_json(job.versions);
    SimTraining repeated(again);
    ASSERT_TRUE(repeated.run_to_end(1000s));
    ASSERT_FALSE(repeated.failed) << repeated.failed->message;
    expect_right(repeated, 1e-4);
    EXPECT_EQ(repeated.versions, job.versions);
    EXPECT_EQ(repeated.parameters(0), job.parameters(0));
  }
  EXPECT_GT(changes, runs / 2) << "most of these jobs should have had time for a change";
}

TEST(PlanChange, BytesAreCountedOverAllPlans) {
  SimTrainingOptions options = random_job(1);
  options.script.short_batch_probability = 0;
  options.script.iterations = 4;
  const Model& model = options.script.model;
  const int workers = options.script.plan.workers;
  const plan::Plan ps = uniform_plan(model, workers, Scheme::kPs);
  const plan::Plan sfb = uniform_plan(model, workers, Scheme::kSfb);
  options.coordinator.plan_json = plan::to_json(plan::PlanSequence{{0, ps}, {3, sfb}});
  SimTraining job(options);
  ASSERT_TRUE(job.run_to_end(100s));
  ASSERT_FALSE(job.failed);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const auto size = plan::factor_size(model, model.layers[l]);
    if (!size) continue;
    std::uint64_t sent = 0;
    for (int rank = 0; rank < workers; ++rank) {
      for (const TensorId tensor : model.layers[l].tensors) sent += job.use(rank).tensors[index(tensor)].sent;
    }
    std::uint64_t values = 0;  // rank 0 sends them to all at the beginning
    for (const TensorId tensor : model.layers[l].tensors) values += model.tensors[index(tensor)].bytes() * static_cast<std::uint64_t>(workers - 1);
    EXPECT_EQ(sent, values + 4 * (3 * plan::numbers_sent_in_all(Scheme::kPs, *size, workers, {}) +
                                  plan::numbers_sent_in_all(Scheme::kSfb, *size, workers, {})));
  }
}

// Two dedicated servers hold parts of the dense layers under both plans: they install each as the workers do, and what has been
// summed by them before and after is right.
TEST(PlanChange, DedicatedServersGoOverToTheOtherPlanWithTheWorkers) {
  int changes = 0;
  for (const std::uint64_t seed : seeds(60)) {
    SimTrainingOptions options = unruly(random_job(1 + seed % 20), seed);
    const int workers = options.script.plan.workers;
    options.servers = 1 + static_cast<int>(seed % 2);
    options.coordinator.colocated = seed % 4 != 0;
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(2));
    ASSERT_FALSE(job.failed) << replay(seed) << ": " << job.failed->message;
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 10'000));
    job.coordinator().change_plan(random_plan(options.script.model, workers, seed), "for a test");
    ASSERT_TRUE(job.run_to_end(1000s)) << replay(seed);
    ASSERT_FALSE(job.failed) << replay(seed) << ": " << job.failed->message;
    SCOPED_TRACE(replay(seed));
    expect_right(job, 1e-4);
    job.world().run_for(1s);
    for (int number = 0; number < options.servers; ++number) {
      const std::vector<std::string>& installed = job.plans_of_server(number);
      ASSERT_EQ(installed.size(), job.versions.size());
      for (std::size_t v = 0; v < installed.size(); ++v) EXPECT_EQ(installed[v], plan::to_json(job.versions[v].plan));
      EXPECT_TRUE(job.server_has_ended(number));
    }
    changes += static_cast<int>(job.changes.size());
  }
  if (seeds(60).size() >= 60) {
    EXPECT_GT(changes, 30) << "half of these jobs should have had time for a change";
  }
}

// The measurements of a slower link reach a job with a dedicated server as well, and its plan keeps the wire.
TEST(PlanChange, ADedicatedServerIsMeasuredAgainWithTheWorkers) {
  SimTrainingOptions options = measured_job();
  options.servers = 1;
  options.coordinator.wire = DType::kBFloat16;
  SimTraining job(options);
  ASSERT_TRUE(job.run_to(0));
  EXPECT_EQ(job.links.size(), 6u) << "three members, each to the two others";
  job.world().run_for(6s);
  EXPECT_TRUE(job.changes.empty()) << job.changes[0].why << ": " << job.changes[0].what;
  job.world().set_link_rate(1e6);
  ASSERT_TRUE(job.world().run_until([&] { return !job.changes.empty() || job.failed; }, job.world().now() + 60s));
  ASSERT_FALSE(job.failed) << job.failed->message;
  const plan::Plan& plan = job.changes[0].plan;
  EXPECT_EQ(plan.layers[1].scheme, Scheme::kSfb);
  EXPECT_EQ(plan.wire, DType::kBFloat16);
  EXPECT_EQ(plan.nodes(), 3);
  // A member's answer to a probe may have to wait behind its own burst, so half the rate is possible.
  EXPECT_GT(job.changes[0].speeds.link_bytes_per_second, 0.4e6);
  EXPECT_LT(job.changes[0].speeds.link_bytes_per_second, 1.2e6);
  job.world().run_for(10s);
  job.coordinator().request_stop();
  ASSERT_TRUE(job.run_to_end(10s));
  ASSERT_TRUE(job.finished) << job.failed->message;
  EXPECT_EQ(job.parameters(1), job.parameters(0));
  EXPECT_EQ(job.plans_of_server(0).size(), job.versions.size());
}

TEST(PlanChange, AJobThatIsTakenUpLaterBeginsWithThePlanOfItsIteration) {
  SimTrainingOptions options = random_job(5);
  const Model& model = options.script.model;
  const int workers = options.script.plan.workers;
  const plan::Plan ps = uniform_plan(model, workers, Scheme::kPs);
  const plan::Plan sfb = uniform_plan(model, workers, Scheme::kSfb);
  const plan::Plan block = uniform_plan(model, workers, Scheme::kBlock);
  options.script.first = 300;
  options.script.iterations = 308;
  options.coordinator.plan_json = plan::to_json(plan::PlanSequence{{0, ps}, {100, sfb}, {304, block}});
  SimTraining job(options);
  ASSERT_TRUE(job.run_to_end(100s));
  ASSERT_FALSE(job.failed) << job.failed->message;
  ASSERT_EQ(job.plans(0).size(), 8u);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(job.plans(1)[static_cast<std::size_t>(i)], plan::to_json(i < 4 ? sfb : block)) << i;
  EXPECT_EQ(job.parameters(1), job.parameters(0));
}

TEST(PlanChange, WorkersThatCannotAreLeftAlone) {
  SimTrainingOptions options = random_job(3);
  options.replans = false;
  SimTraining job(options);
  ASSERT_TRUE(job.run_to(2));
  EXPECT_FALSE(job.coordinator().change_plan(random_plan(options.script.model, options.script.plan.workers, 7), "for a test"));
  const plan::Plan plan = random_plan(options.script.model, options.script.plan.workers, 1);
  options.coordinator.plan_json = plan::to_json(plan::PlanSequence{{0, plan}, {5, plan}});
  SimTraining given(options);
  given.run_to_end(10s);
  ASSERT_TRUE(given.failed);
  EXPECT_THAT(given.failed->message, HasSubstr("it changes at iteration 5, and these workers keep to the plan"));
}

TEST(PlanChange, AWorkerThatDiesMeanwhileIsNamed) {
  int during = 0;
  int runs = 0;
  for (const std::uint64_t seed : seeds(150)) {
    ++runs;
    SimTrainingOptions options = unruly(random_job(1 + seed % 20), seed);
    options.script.iterations = 100'000;
    const int workers = options.script.plan.workers;
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(3));
    ASSERT_TRUE(job.coordinator().change_plan(random_plan(options.script.model, workers, seed), "for a test"));
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 15'000));
    if (job.changes.empty()) ++during;
    const int victim = static_cast<int>(seed) % workers;
    job.world().kill(job.member(victim));
    ASSERT_TRUE(job.run_to_end(10s)) << replay(seed);
    ASSERT_TRUE(job.failed) << replay(seed);
    const std::string name = "rank " + std::to_string(victim);
    EXPECT_THAT(job.failed->message, HasSubstr(name)) << replay(seed);
    for (int rank = 0; rank < workers; ++rank) {
      if (rank != victim) {
        EXPECT_THAT(job.error(rank)->message, HasSubstr(name)) << replay(seed);
      }
    }
  }
  EXPECT_GT(during, runs / 4);
}

TEST(PlanChange, ARequestToStopMeanwhileEndsAllAfterTheSameIteration) {
  for (const std::uint64_t seed : seeds(150)) {
    SimTrainingOptions options = unruly(random_job(1 + seed % 20), seed);
    options.script.iterations = 100'000;
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(3));
    job.coordinator().change_plan(random_plan(options.script.model, options.script.plan.workers, seed), "for a test");
    job.world().run_for(std::chrono::microseconds(seed * 7919 % 15'000));
    job.coordinator().request_stop();
    ASSERT_TRUE(job.run_to_end(100s)) << replay(seed);
    ASSERT_TRUE(job.finished) << replay(seed) << ": " << job.failed->message;
    for (int rank = 1; rank < options.script.plan.workers; ++rank) {
      EXPECT_EQ(job.plans(rank), job.plans(0)) << replay(seed);
      EXPECT_EQ(job.parameters(rank), job.parameters(0)) << replay(seed);
    }
  }
}

TEST(PlanChange, TheEndOfTrainingMeanwhileIsTheEnd) {
  for (const std::uint64_t seed : seeds(100)) {
    SimTrainingOptions options = unruly(random_job(1 + seed % 20), seed);
    SimTraining job(options);
    ASSERT_TRUE(job.run_to(static_cast<Iteration>(options.script.iterations - 1)));
    job.coordinator().change_plan(random_plan(options.script.model, options.script.plan.workers, seed), "for a test");
    ASSERT_TRUE(job.run_to_end(100s)) << replay(seed);
    EXPECT_TRUE(job.finished) << replay(seed) << ": " << job.failed->message;
  }
}

TEST(PlanChange, ALinkThatBecomesSlowerLeadsToAnotherPlanOnAllWorkersAtOneIteration) {
  SimTraining job(measured_job());
  ASSERT_TRUE(job.run_to(0));
  // 64 KiB a layer take 66 us of the fast link: nothing is worth a second product.
  EXPECT_NE(job.versions[0].plan.layers[1].scheme, Scheme::kSfb);
  job.world().run_for(6s);
  EXPECT_TRUE(job.changes.empty()) << job.changes[0].why << ": " << job.changes[0].what;
  // A thousandth of the rate: 66 ms for fc1 by ps, 8 ms by sfb.
  job.world().set_link_rate(1e6);
  ASSERT_TRUE(job.world().run_until([&] { return !job.changes.empty() || job.failed; }, job.world().now() + 60s));
  ASSERT_FALSE(job.failed) << job.failed->message;
  const cluster::PlanChange& change = job.changes[0];
  EXPECT_THAT(change.why, HasSubstr("an iteration takes"));
  EXPECT_THAT(change.why, HasSubstr("link 0.00"));
  EXPECT_THAT(change.what, HasSubstr("-> sfb"));
  EXPECT_EQ(change.plan.layers[1].scheme, Scheme::kSfb);
  EXPECT_NEAR(change.speeds.link_bytes_per_second, 1e6, 2e5);
  EXPECT_LT(change.seconds_after, change.seconds_before / 2);
  job.world().run_for(20s);
  EXPECT_EQ(job.changes.size(), 1u) << "one is enough: " << job.changes.back().why;
  job.coordinator().request_stop();
  ASSERT_TRUE(job.run_to_end(10s));
  EXPECT_EQ(job.plans(1), job.plans(0));
  EXPECT_EQ(job.parameters(1), job.parameters(0));
  for (std::size_t t = 0; t < 3; ++t) {
    EXPECT_EQ(job.use(0).tensors[t].received, job.use(1).tensors[t].sent) << "measuring counts for no tensor";
  }
  EXPECT_EQ(job.plans(0)[change.from - 1], plan::to_json(job.versions[0].plan));
  EXPECT_EQ(job.plans(0)[change.from], plan::to_json(change.plan));
}

TEST(PlanChange, IsNotMadeWhereItIsSwitchedOff) {
  SimTrainingOptions options = measured_job();
  options.coordinator.replan.enabled = false;
  SimTraining job(options);
  ASSERT_TRUE(job.run_to(0));
  job.world().run_for(3s);
  job.world().set_link_rate(1e6);
  job.world().run_for(60s);
  EXPECT_TRUE(job.changes.empty());
  EXPECT_FALSE(job.failed);
}

TEST(PlanChange, EveryLinkIsMeasuredInBothDirections) {
  SimTrainingOptions options = random_job(2);  // four workers
  options.coordinator.plan_json.reset();
  SimTraining job(options);
  ASSERT_TRUE(job.run_to(0));
  ASSERT_EQ(job.links.size(), 12u);
  for (const cluster::MeasuredLink& link : job.links) {
    EXPECT_NE(link.from, link.to);
    EXPECT_NEAR(link.bytes_per_second, options.world.bytes_per_second, 0.1 * options.world.bytes_per_second);
  }
}

}  // namespace
}  // namespace poseidon::test
