#include "session/wire_engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "session/engine_session.h"
#include "support/seeds.h"
#include "wire_swarm.h"

namespace poseidon::test {
namespace {

TEST(WireEngineTest, TheExpectedRoundingIsRightByHand) {
  // 1 + 2^-7 is a bfloat16, 1 + 2^-8 a tie between it and 1, 1 + 3 * 2^-8 one between it and 1 + 2^-6.
  EXPECT_EQ(rounded(DType::kBFloat16, 1 + std::ldexp(1.0f, -7)), 1 + std::ldexp(1.0f, -7));
  EXPECT_EQ(rounded(DType::kBFloat16, 1 + std::ldexp(1.0f, -8)), 1.0f);
  EXPECT_EQ(rounded(DType::kBFloat16, 1 + 3 * std::ldexp(1.0f, -8)), 1 + std::ldexp(1.0f, -6));
  EXPECT_EQ(rounded(DType::kFloat16, 2'049.0f), 2'048.0f);
  EXPECT_EQ(rounded(DType::kFloat16, -2'051.0f), -2'052.0f);
  EXPECT_EQ(rounded(DType::kFloat16, 65'519.0f), 65'504.0f);
  EXPECT_EQ(rounded(DType::kFloat16, 65'520.0f), std::numeric_limits<float>::infinity());
  EXPECT_EQ(rounded(DType::kFloat16, 1e-9f), 0.0f);
  EXPECT_EQ(rounded(DType::kFloat16, std::ldexp(3.0f, -25)), std::ldexp(1.0f, -23)) << "a tie between subnormal numbers";
}

TEST(WireEngineTest, EveryWorkerGetsTheRoundedSumOfRoundedContributionsWhateverThePlanAndTheOrder) {
  for (const std::uint64_t seed : seeds(30)) {
    SCOPED_TRACE(replay(seed));
    const WireJob job(seed);
    WireSwarm swarm(job, seed);
    ASSERT_TRUE(swarm.run(3));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(WireEngineTest, KeepsOneNarrowCopyOfEachTensorAndUsesItAgain) {
  for (const Scheme scheme : {Scheme::kPs, Scheme::kSfb, Scheme::kBlock}) {
    WireJob job(4);
    job.plan = uniform_plan(job.model, static_cast<int>(job.workers), scheme);
    job.plan.wire = job.wire;
    WireSwarm swarm(job, 1);
    ASSERT_TRUE(swarm.run(12));
    std::size_t copies = 0;
    for (const TensorSpec& tensor : job.model.tensors) copies += tensor.dtype == DType::kFloat32 ? 2 * tensor.elements() : 0;
    // Factors of one iteration may still be leaving when those of the next are handed in.
    const std::size_t factors = scheme == Scheme::kPs ? 0 : 2 * WireJob::kBatch * (WireJob::kRows + WireJob::kCols);
    for (const auto& worker : swarm.workers) {
      EXPECT_GE(worker->engine->buffer_bytes(), copies + factors) << to_string(scheme);
      EXPECT_LE(worker->engine->buffer_bytes(), copies + 2 * factors) << to_string(scheme);
    }
  }
}

TEST(WireEngineTest, InitialValuesTravelInFull) {
  const WireJob job(2);
  WireSwarm swarm(job, 1);
  std::vector<Floats> values;
  std::size_t left = job.workers;
  for (std::size_t rank = 0; rank < job.workers; ++rank) values.push_back(Floats(70'001, rank == 0 ? 1.0f / 3 : -1.0f));
  for (std::size_t rank = 0; rank < job.workers; ++rank) {
    std::vector<TensorView> views(job.model.tensors.size());
    views[0] = view(values[rank]);
    swarm.workers[rank]->engine->broadcast(views, [&left] { --left; });
  }
  ASSERT_TRUE(swarm.world.run_until([&] { return left == 0; }, swarm.world.now() + std::chrono::seconds(10)));
  for (const Floats& own : values) EXPECT_EQ(own, Floats(70'001, 1.0f / 3));
}

TEST(WireEngineTest, FailureEndsEverySubmissionOnce) {
  // One that is still being narrowed, one that waits for others, one that comes later, factors.
  for (const std::uint64_t seed : seeds(10)) {
    WireJob job(3);
    job.plan = uniform_plan(job.model, static_cast<int>(job.workers), Scheme::kSfb);
    job.plan.wire = job.wire;
    WireSwarm swarm(job, seed);
    session::WireEngine& engine = *swarm.workers[0]->engine;
    Floats large(70'001, 1.0f);
    Floats small(7, 1.0f);
    Floats factors(WireJob::kBatch * WireJob::kCols, 1.0f);
    Floats weight(WireJob::kRows * WireJob::kCols);
    Floats bias(WireJob::kRows);
    std::vector<int> ends(4, 0);
    const auto ended = [&ends](std::size_t which) {
      return [&ends, which](const Synced& synced) {
        EXPECT_TRUE(synced.error && synced.error->message == "over");
        ++ends[which];
      };
    };
    engine.submit(TensorId{1}, 0, {.gradient = view(small), .ready = {}, .samples = 1}, ended(0));
    engine.submit(TensorId{0}, 0, {.gradient = view(large), .ready = {}, .samples = 1}, ended(1));
    Floats u(WireJob::kBatch * WireJob::kRows, 1.0f);
    engine.submit_factors(LayerId{2}, 0,
                          {.outputs = view(u),
                           .inputs = view(factors),
                           .rows = WireJob::kBatch,
                           .hold = nullptr,
                           .weight = view(weight),
                           .bias = view(bias)},
                          ended(2));
    swarm.world.run_for(std::chrono::microseconds(seed * 7));
    engine.fail(Error{ErrorCode::kAborted, "over"});
    engine.submit_absent(TensorId{0}, 1, view(large), ended(3));
    swarm.world.run_for(std::chrono::seconds(1));
    EXPECT_EQ(ends, std::vector<int>(4, 1)) << replay(seed);
  }
}

TEST(WireEngineTest, FactorsThatCompleteAfterAFailureAreOfNoUse) {
  WireJob job(2);
  job.plan = uniform_plan(job.model, static_cast<int>(job.workers), Scheme::kSfb);
  job.plan.wire = job.wire;
  WireSwarm swarm(job, 2);
  struct Memory {
    Floats u = Floats(WireJob::kBatch * WireJob::kRows, 1.0f), v = Floats(WireJob::kBatch * WireJob::kCols, 1.0f);
    Floats weight = Floats(WireJob::kRows * WireJob::kCols), bias = Floats(WireJob::kRows);
    int ends = 0;
  };
  std::vector<Memory> memory(job.workers);
  const auto submit = [&](std::size_t rank) {
    Memory& own = memory[rank];
    swarm.workers[rank]->engine->submit_factors(
        LayerId{2}, 0,
        {.outputs = view(own.u), .inputs = view(own.v), .rows = WireJob::kBatch, .hold = nullptr, .weight = view(own.weight), .bias = view(own.bias)},
        [&own](const Synced&) { ++own.ends; });
  };
  submit(0);
  swarm.world.run_for(std::chrono::milliseconds(10));  // its own are in their place
  swarm.workers[0]->engine->fail(Error{ErrorCode::kAborted, "over"});
  for (std::size_t rank = 1; rank < job.workers; ++rank) submit(rank);
  swarm.world.run_for(std::chrono::seconds(1));
  EXPECT_EQ(memory[0].ends, 1);
  EXPECT_EQ(memory[0].weight, Floats(WireJob::kRows * WireJob::kCols)) << "who has failed is not written to";
}

TEST(WireEngineTest, IsNotThereWhereNothingIsNarrowed) {
  WireJob job(2);
  runtime::sim::SimWorld world({});
  runtime::sim::SimMember& member = world.add(Member{0});
  runtime::sim::SimCompute compute(member, {});
  const auto engine_of = [&](int workers, std::optional<DType> wire) {
    plan::Plan plan = uniform_plan(job.model, workers, Scheme::kPs);
    plan.wire = wire;
    std::vector<Member> members;
    for (int rank = 0; rank < workers; ++rank) members.push_back(Member{static_cast<std::uint32_t>(rank)});
    auto inner = session::EngineSession::create(
                     member, member, compute,
                     {.members = members, .model = plan::model_on_wire(job.model, workers, wire), .plan = plan})
                     .value();
    return session::WireEngine::around(member, std::move(inner), job.model, true);
  };
  const auto is_narrow = [](const std::unique_ptr<session::Engine>& engine) {
    return dynamic_cast<session::WireEngine*>(engine.get()) != nullptr;
  };
  EXPECT_TRUE(is_narrow(engine_of(2, DType::kFloat16)));
  EXPECT_FALSE(is_narrow(engine_of(2, std::nullopt)));
  // Alone nothing travels, and the gradient stays as it is.
  const std::unique_ptr<session::Engine> alone = engine_of(1, DType::kFloat16);
  EXPECT_FALSE(is_narrow(alone));
  Floats gradient(7, 1.0f / 3);
  bool synced = false;
  alone->submit(TensorId{1}, 0, {.gradient = view(gradient), .ready = {}, .samples = 1}, [&](const Synced&) { synced = true; });
  world.run_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(synced);
  EXPECT_EQ(gradient, Floats(7, 1.0f / 3));
}

}  // namespace
}  // namespace poseidon::test
