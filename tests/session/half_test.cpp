// Jobs whose gradients are bfloat16 or float16, in virtual time: what every worker ends up with is the sum in float32, rounded
// once.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"
#include "support/scripted_worker.h"

namespace poseidon::test {
namespace {

using Halves = std::vector<std::uint16_t>;

constexpr std::size_t kWorkers = 3;
constexpr std::size_t kElements = 100'001;  // of the dense tensor: some pieces, and an odd rest
constexpr std::size_t kRows = 21;           // of the factor layer's matrix
constexpr std::size_t kCols = 33;
constexpr std::size_t kBatch = 4;
constexpr Iteration kIterations = 3;

Model model_of(DType dtype) {
  const auto extent = [](std::size_t count) { return static_cast<std::int64_t>(count); };
  Model model;
  model.tensors = {{"conv.weight", {extent(kElements)}, dtype},
                   {"fc.weight", {extent(kRows), extent(kCols)}, dtype},
                   {"fc.bias", {extent(kRows)}, dtype}};
  model.layers = {{"conv", {TensorId{0}}, 0}, {"fc", {TensorId{1}, TensorId{2}}, kBatch}};
  return model;
}

std::uint16_t to_half(DType dtype, double value) {
  const float narrow = static_cast<float>(value);
  return dtype == DType::kBFloat16 ? base::to_bfloat16(narrow) : base::to_float16(narrow);
}
double from_half(DType dtype, std::uint16_t bits) {
  return dtype == DType::kBFloat16 ? base::from_bfloat16(bits) : base::from_float16(bits);
}

// Whole numbers that the type holds, so that every sum and product below is exact in float32 and in double, and only the last
// rounding shows. A bfloat16 has 8 bits and a float16 11: three of the largest, or a product, need not be one.
int most_summed(DType dtype) { return dtype == DType::kBFloat16 ? 250 : 2'000; }
int most_multiplied(DType dtype) { return dtype == DType::kBFloat16 ? 15 : 40; }

double whole(std::size_t rank, Iteration iteration, std::size_t i, int most) {
  const base::PhiloxCounter words = base::philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(rank),
                                                  static_cast<std::uint32_t>(iteration), 0},
                                                 {{1, 2}});
  return static_cast<double>(words[0] % static_cast<std::uint32_t>(2 * most + 1)) - most;
}

Halves drawn(DType dtype, std::size_t count, std::size_t rank, Iteration iteration, int most) {
  Halves numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = to_half(dtype, whole(rank, iteration, i, most));
  return numbers;
}

TensorView view(Halves& numbers, DType dtype) {
  return {reinterpret_cast<std::byte*>(numbers.data()), numbers.size() * sizeof(std::uint16_t), dtype, {}};
}

struct Worker {
  std::unique_ptr<runtime::sim::SimCompute> compute;
  std::unique_ptr<session::EngineSession> session;
  Halves dense;
  Halves u;
  Halves v;
  Halves weight = Halves(kRows * kCols);
  Halves bias = Halves(kRows);
  int synced = 0;
  std::string trouble;
};

void submit(Worker& worker, const Model& model, std::size_t rank, Iteration iteration, bool factors) {
  const DType dtype = model.tensors[0].dtype;
  worker.dense = drawn(dtype, kElements, rank, iteration, most_summed(dtype));
  worker.u = drawn(dtype, kBatch * kRows, rank, iteration, most_multiplied(dtype));
  worker.v = drawn(dtype, kBatch * kCols, rank, iteration + 50, most_multiplied(dtype));
  const auto on_synced = [&worker](const Synced& synced) {
    if (synced.error) worker.trouble = synced.error->message;
    ++worker.synced;
  };
  worker.session->submit(TensorId{0}, iteration, {.gradient = view(worker.dense, dtype), .ready = {}, .samples = 1}, on_synced);
  if (factors) {
    worker.session->submit_factors(LayerId{1}, iteration,
                                   {.outputs = view(worker.u, dtype),
                                    .inputs = view(worker.v, dtype),
                                    .rows = kBatch,
                                    .hold = nullptr,
                                    .weight = view(worker.weight, dtype),
                                    .bias = view(worker.bias, dtype),
                                    .ready = {},
                                    .samples = 1},
                                   on_synced);
    return;
  }
  worker.weight = drawn(dtype, kRows * kCols, rank, iteration, most_summed(dtype));
  worker.bias = drawn(dtype, kRows, rank, iteration, most_summed(dtype));
  worker.session->submit(TensorId{1}, iteration, {.gradient = view(worker.weight, dtype), .ready = {}, .samples = 1}, on_synced);
  worker.session->submit(TensorId{2}, iteration, {.gradient = view(worker.bias, dtype), .ready = {}, .samples = 1}, on_synced);
}

// By definition: over all workers, in double, then rounded.
Halves right_sum(DType dtype, std::size_t count, Iteration iteration) {
  Halves sums(count);
  for (std::size_t i = 0; i < count; ++i) {
    double sum = 0;
    for (std::size_t rank = 0; rank < kWorkers; ++rank) sum += whole(rank, iteration, i, most_summed(dtype));
    sums[i] = to_half(dtype, sum);
  }
  return sums;
}

Halves right_product(DType dtype, Iteration iteration) {
  Halves product(kRows * kCols);
  for (std::size_t i = 0; i < product.size(); ++i) {
    double sum = 0;
    for (std::size_t rank = 0; rank < kWorkers; ++rank) {
      for (std::size_t k = 0; k < kBatch; ++k) {
        sum += whole(rank, iteration, k * kRows + i / kCols, most_multiplied(dtype)) * whole(rank, iteration + 50, k * kCols + i % kCols, most_multiplied(dtype));
      }
    }
    product[i] = to_half(dtype, sum);
  }
  return product;
}

Halves right_bias(DType dtype, Iteration iteration) {
  Halves bias(kRows);
  for (std::size_t i = 0; i < kRows; ++i) {
    double sum = 0;
    for (std::size_t rank = 0; rank < kWorkers; ++rank) {
      for (std::size_t k = 0; k < kBatch; ++k) sum += whole(rank, iteration, k * kRows + i, most_multiplied(dtype));
    }
    bias[i] = to_half(dtype, sum);
  }
  return bias;
}

class HalfTypesTest : public ::testing::TestWithParam<std::tuple<DType, Scheme>> {};

TEST_P(HalfTypesTest, AreSummedInFloat32AndRoundedOnce) {
  const auto [dtype, scheme] = GetParam();
  const Model model = model_of(dtype);
  runtime::sim::SimWorld world({.seed = 3,
                                .task_jitter_max = std::chrono::microseconds(20),
                                .shuffle_delay_max = std::chrono::milliseconds(1)});
  std::vector<Member> members;
  for (std::uint32_t rank = 0; rank < kWorkers; ++rank) members.push_back(Member{rank});
  for (const Member member : members) world.add(member);
  for (std::size_t a = 0; a < kWorkers; ++a) {
    for (std::size_t b = 0; b < a; ++b) world.at(members[a]).connect(members[b], {}, std::chrono::seconds(1));
  }
  world.run_for(std::chrono::milliseconds(1));
  std::vector<Worker> workers(kWorkers);
  for (std::size_t rank = 0; rank < kWorkers; ++rank) {
    runtime::sim::SimMember& member = world.at(members[rank]);
    workers[rank].compute = std::make_unique<runtime::sim::SimCompute>(member, runtime::sim::SimCompute::Speeds{});
    workers[rank].session = session::EngineSession::create(member, member, *workers[rank].compute,
                                                           {.self = Rank{static_cast<std::int32_t>(rank)},
                                                            .members = members,
                                                            .model = model,
                                                            .plan = uniform_plan(model, kWorkers, scheme)})
                                .value();
  }
  const bool factors = scheme != Scheme::kPs;
  for (Iteration iteration = 0; iteration < kIterations; ++iteration) {
    for (std::size_t rank = 0; rank < kWorkers; ++rank) submit(workers[rank], model, rank, iteration, factors);
    const auto all_synced = [&, messages = factors ? 2 : 3] {
      return std::all_of(workers.begin(), workers.end(), [&](const Worker& w) { return w.synced == messages; });
    };
    ASSERT_TRUE(world.run_until(all_synced, world.now() + std::chrono::seconds(10)));
    for (Worker& worker : workers) {
      ASSERT_EQ(worker.trouble, "");
      worker.synced = 0;
      ASSERT_EQ(worker.dense, right_sum(dtype, kElements, iteration));
      ASSERT_EQ(worker.weight, factors ? right_product(dtype, iteration) : right_sum(dtype, kRows * kCols, iteration));
      ASSERT_EQ(worker.bias, factors ? right_bias(dtype, iteration) : right_sum(dtype, kRows, iteration));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllSchemes, HalfTypesTest,
                         ::testing::Combine(::testing::Values(DType::kBFloat16, DType::kFloat16),
                                            ::testing::Values(Scheme::kPs, Scheme::kSfb, Scheme::kAdam, Scheme::kBlock)),
                         [](const auto& test) {
                           return std::string(to_string(std::get<0>(test.param))) + "Under" +
                                  std::string(to_string(std::get<1>(test.param)));
                         });

// Whether the numbers above test anything: many of the sums are none of the type, so that they are rounded.
TEST(HalfTypesTest, TheNumbersOfTheseTestsAreRoundedOften) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    int rounded = 0;
    for (std::size_t i = 0; i < 1'000; ++i) {
      double sum = 0;
      for (std::size_t rank = 0; rank < kWorkers; ++rank) sum += whole(rank, 0, i, most_summed(dtype));
      rounded += from_half(dtype, to_half(dtype, sum)) != sum;
    }
    EXPECT_GT(rounded, 50) << to_string(dtype);
  }
}

TEST(EngineSession, RefusesFactorsOfTwoTypes) {
  Model model = model_of(DType::kBFloat16);
  model.tensors[2].dtype = DType::kFloat32;
  runtime::sim::SimWorld world({});
  runtime::sim::SimMember& member = world.add(Member{0});
  runtime::sim::SimCompute compute(member, {});
  const auto session = session::EngineSession::create(
      member, member, compute,
      {.members = {Member{0}, Member{1}}, .model = model, .plan = uniform_plan(model, 2, Scheme::kPs)});
  ASSERT_FALSE(session.ok());
  EXPECT_EQ(session.error().message, "layer fc offers factors, but fc.bias is float32 and fc.weight bfloat16");
}

}  // namespace
}  // namespace poseidon::test
