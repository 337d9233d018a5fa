// A job whose float32 gradients travel with 16 bits, in virtual time, and what every worker must end up with: each contribution
// rounded, added in float32 in the order of ranks, and rounded once more.
//
// The expected numbers share no code with the engine: rounding is std::nearbyint in double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "plan/plan.h"
#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"
#include "session/wire_engine.h"
#include "support/scripted_worker.h"

namespace poseidon::test {

using Floats = std::vector<float>;

// To the nearest number of the type, a tie to the even one; beyond the largest: infinity.
inline float rounded(DType wire, float value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const bool is_bfloat16 = wire == DType::kBFloat16;
  const int digits = is_bfloat16 ? 8 : 11;
  const int smallest = is_bfloat16 ? -133 : -24;  // of the last places: that of the subnormal numbers
  const double largest = is_bfloat16 ? std::ldexp(255, 120) : 65'504;
  int exponent = 0;
  std::frexp(static_cast<double>(value), &exponent);
  const double place = std::ldexp(1, std::max(exponent - digits, smallest));
  const double nearest = std::nearbyint(static_cast<double>(value) / place) * place;
  if (std::abs(nearest) > largest) return std::copysign(std::numeric_limits<float>::infinity(), value);
  return static_cast<float>(nearest);
}

// A job: its plan, and what each worker hands in. All functions of the seed.
struct WireJob {
  explicit WireJob(std::uint64_t seed_)
      : seed(seed_), wire(seed % 2 == 0 ? DType::kBFloat16 : DType::kFloat16), workers(2 + seed % 4) {
    model.tensors = {{"conv.weight", {70'001}, DType::kFloat32},
                     {"conv.bias", {7}, DType::kFloat32},
                     {"exact", {501}, DType::kFloat64},
                     {"fc.weight", {kRows, kCols}, DType::kFloat32},
                     {"fc.bias", {kRows}, DType::kFloat32}};
    model.layers = {{"conv", {TensorId{0}, TensorId{1}}, 0}, {"exact", {TensorId{2}}, 0}, {"fc", {TensorId{3}, TensorId{4}}, kBatch}};
    plan = random_plan(model, static_cast<int>(workers), seed * 7 + 1);
    plan.wire = wire;
  }
  static constexpr std::int64_t kRows = 21;
  static constexpr std::int64_t kCols = 33;
  static constexpr std::size_t kBatch = 3;

  std::mt19937_64 random(std::size_t tensor, std::size_t rank, Iteration iteration) const {
    return std::mt19937_64(((seed * 100 + tensor) * 100 + rank) * 1'000 + iteration);
  }
  bool is_factored() const { return plan.layers[2].scheme != Scheme::kPs; }
  bool is_absent(std::size_t tensor, std::size_t rank, Iteration iteration) const { return random(tensor, rank, iteration)() % 5 == 0; }
  std::size_t batch(std::size_t rank, Iteration iteration) const { return random(9, rank, iteration)() % (kBatch + 1); }

  // Of any size that a gradient may have, subnormal on the wire and too large for float16 as well.
  Floats gradient(std::size_t tensor, std::size_t rank, Iteration iteration) const {
    std::mt19937_64 draw = random(tensor, rank, iteration);
    Floats numbers(model.tensors[tensor].elements());
    for (float& number : numbers) {
      const float mantissa = static_cast<float>(static_cast<std::int64_t>(draw() >> 38)) / 67'108'864 - 0.5f;
      number = std::ldexp(mantissa, static_cast<int>(draw() % 48) - 30);
    }
    return numbers;
  }
  // Factors that are not of the type, and are rounded to few bits, so that the sums of their products are exact in float32: U to
  // whole numbers of 8 bits or 11, times 2^-8; V to 1, 2 or 4, of both signs.
  Floats outputs(std::size_t rank, Iteration iteration) const {
    std::mt19937_64 draw = random(50, rank, iteration);
    const int digits = wire == DType::kBFloat16 ? 8 : 11;
    Floats numbers(batch(rank, iteration) * kRows);
    for (float& number : numbers) {
      const int whole = (1 << (digits - 1)) + static_cast<int>(draw() % (1u << (digits - 1)));
      const float offset = static_cast<float>(draw() % 99) / 100 - 0.49f;
      number = std::ldexp((static_cast<float>(whole) + offset) * (draw() % 2 == 0 ? 1.0f : -1.0f), -8);
    }
    return numbers;
  }
  Floats inputs(std::size_t rank, Iteration iteration) const {
    std::mt19937_64 draw = random(51, rank, iteration);
    Floats numbers(batch(rank, iteration) * kCols);
    for (float& number : numbers) {
      const float sign = draw() % 2 == 0 ? 1.0f : -1.0f;
      number = std::ldexp(sign * (1 + std::ldexp(static_cast<float>(draw() % 15), -17)), static_cast<int>(draw() % 3));
    }
    return numbers;
  }

  // Nothing where nobody has a gradient. Worked out once, and then the same for all workers.
  const std::optional<Floats>& right_sum(std::size_t tensor, Iteration iteration) const {
    const auto [found, is_new] = right_sums.try_emplace({tensor, iteration});
    std::optional<Floats>& sum = found->second;
    if (!is_new) return sum;
    for (std::size_t rank = 0; rank < workers; ++rank) {
      if (is_absent(tensor, rank, iteration)) continue;
      const Floats own = gradient(tensor, rank, iteration);
      const bool is_first = !sum;
      if (is_first) sum = Floats(own.size());
      for (std::size_t i = 0; i < own.size(); ++i) (*sum)[i] = is_first ? rounded(wire, own[i]) : (*sum)[i] + rounded(wire, own[i]);
    }
    if (sum) std::transform(sum->begin(), sum->end(), sum->begin(), [&](float number) { return rounded(wire, number); });
    return sum;
  }
  Floats right_product(Iteration iteration) const {
    std::vector<double> sums(kRows * kCols);
    for (std::size_t rank = 0; rank < workers; ++rank) {
      const Floats u = outputs(rank, iteration);
      const Floats v = inputs(rank, iteration);
      for (std::size_t i = 0; i < sums.size(); ++i) {
        for (std::size_t k = 0; k < batch(rank, iteration); ++k) {
          sums[i] += static_cast<double>(rounded(wire, u[k * kRows + i / kCols])) * rounded(wire, v[k * kCols + i % kCols]);
        }
      }
    }
    Floats product;
    for (const double sum : sums) product.push_back(rounded(wire, static_cast<float>(sum)));
    return product;
  }
  Floats right_bias(Iteration iteration) const {
    std::vector<double> sums(kRows);
    for (std::size_t rank = 0; rank < workers; ++rank) {
      const Floats u = outputs(rank, iteration);
      for (std::size_t i = 0; i < u.size(); ++i) sums[i % kRows] += rounded(wire, u[i]);
    }
    Floats bias;
    for (const double sum : sums) bias.push_back(rounded(wire, static_cast<float>(sum)));
    return bias;
  }

  std::uint64_t seed;
  DType wire;
  std::size_t workers;
  Model model;
  plan::Plan plan;
  mutable std::map<std::pair<std::size_t, Iteration>, std::optional<Floats>> right_sums;
};

// As memory, with NaNs all alike.
inline testing::AssertionResult same_bits(const Floats& is, const Floats& right) {
  for (std::size_t i = 0; i < right.size(); ++i) {
    if (std::isnan(is[i]) && std::isnan(right[i])) continue;
    if (std::bit_cast<std::uint32_t>(is[i]) == std::bit_cast<std::uint32_t>(right[i])) continue;
    return testing::AssertionFailure() << "number " << i << " is " << std::hexfloat << is[i] << ", not " << right[i];
  }
  return testing::AssertionSuccess();
}

template <typename Number>
TensorView view(std::vector<Number>& numbers, DType dtype) {
  return {reinterpret_cast<std::byte*>(numbers.data()), numbers.size() * sizeof(Number), dtype, {}};
}
inline TensorView view(Floats& numbers) { return view(numbers, DType::kFloat32); }

inline constexpr float kUntouched = -1234.5f;

// Hands in a job's gradients, in an order of its own, and compares what comes back. Each iteration begins when all sums of the one
// before are in, so workers are not in step.
class WireWorker {
 public:
  WireWorker(const WireJob& job, runtime::sim::SimMember& member, std::size_t rank, const std::vector<Member>& members, std::uint64_t order)
      : job_(job), rank_(rank), compute_(member, {}), order_(order) {
    auto inner = session::EngineSession::create(member, member, compute_,
                                                {.self = Rank{static_cast<std::int32_t>(rank)},
                                                 .members = members,
                                                 .model = plan::model_on_wire(job.model, job.plan.workers, job.plan.wire),
                                                 .plan = job.plan})
                     .value();
    engine = std::make_unique<session::WireEngine>(member, std::move(inner), job.model, true);
    for (const TensorSpec& tensor : job.model.tensors) dense_.emplace_back(tensor.dtype == DType::kFloat32 ? tensor.elements() : 0);
    weight_.resize(job.model.tensors[3].elements());
    bias_.resize(job.model.tensors[4].elements());
  }

  void run(Iteration iterations) {
    if (iteration_ == iterations) return;
    std::vector<std::function<void()>> submissions = {[this] { submit(0); }, [this] { submit(1); }, [this] { submit_exact(); }};
    if (job_.is_factored()) {
      submissions.push_back([this] { submit_factors(); });
    } else {
      submissions.push_back([this] { submit(3); });
      submissions.push_back([this] { submit(4); });
    }
    left_ = submissions.size();
    then_ = [this, iterations] {
      ++iteration_;
      run(iterations);
    };
    std::shuffle(submissions.begin(), submissions.end(), order_);
    for (const auto& submit_one : submissions) submit_one();
  }
  Iteration iterations_done() const { return iteration_; }

  std::unique_ptr<session::WireEngine> engine;

 private:
  void submit(std::size_t tensor) {
    Floats& memory = dense_[tensor];
    const bool absent = job_.is_absent(tensor, rank_, iteration_);
    memory = absent ? Floats(memory.size(), kUntouched) : job_.gradient(tensor, rank_, iteration_);
    const auto check = [this, tensor](const Synced& synced) {
      ASSERT_FALSE(synced.error) << synced.error->message;
      ASSERT_EQ(synced.iteration, iteration_);
      std::uint32_t contributors = 0;
      for (std::size_t rank = 0; rank < job_.workers; ++rank) contributors += job_.is_absent(tensor, rank, iteration_) ? 0 : 1;
      EXPECT_EQ(synced.contributors, contributors);
      EXPECT_EQ(synced.samples, 3 * contributors);
      const std::optional<Floats>& right = job_.right_sum(tensor, iteration_);
      EXPECT_TRUE(same_bits(dense_[tensor], right.value_or(Floats(dense_[tensor].size(), kUntouched))))
          << job_.model.tensors[tensor].name << ", rank " << rank_ << ", iteration " << iteration_;
      one_done();
    };
    const TensorId id{static_cast<std::uint32_t>(tensor)};
    if (absent) return engine->submit_absent(id, iteration_, view(memory), check);
    engine->submit(id, iteration_, {.gradient = view(memory), .ready = {}, .samples = 3}, check);
  }

  // float64 is not narrowed: a sum of numbers that no narrower type holds.
  void submit_exact() {
    exact_.assign(job_.model.tensors[2].elements(), 1.0 + std::ldexp(1.0, -40) * static_cast<double>(rank_ + 1));
    const DenseGradient gradient{.gradient = view(exact_, DType::kFloat64), .ready = {}, .samples = 1};
    engine->submit(TensorId{2}, iteration_, gradient, [this](const Synced& synced) {
      ASSERT_FALSE(synced.error) << synced.error->message;
      const double p = static_cast<double>(job_.workers);
      EXPECT_EQ(exact_, std::vector<double>(exact_.size(), p + std::ldexp(p * (p + 1) / 2, -40)));
      one_done();
    });
  }

  void submit_factors() {
    struct Factors {
      Floats u;
      Floats v;
    };
    auto factors = std::make_unique<Factors>(Factors{job_.outputs(rank_, iteration_), job_.inputs(rank_, iteration_)});
    const TensorView u = view(factors->u);
    const TensorView v = view(factors->v);
    released_ = false;
    // Whoever still reads them then sends this.
    std::shared_ptr<void> hold(factors.release(), [this](void* memory) {
      auto* const done = static_cast<Factors*>(memory);
      std::fill(done->u.begin(), done->u.end(), 1e30f);
      std::fill(done->v.begin(), done->v.end(), 1e30f);
      spent_.push_back(std::unique_ptr<void, void (*)(void*)>(done, [](void* m) { delete static_cast<Factors*>(m); }));
      released_ = true;
    });
    engine->submit_factors(LayerId{2}, iteration_,
                           {.outputs = u,
                            .inputs = v,
                            .rows = job_.batch(rank_, iteration_),
                            .hold = std::move(hold),
                            .weight = view(weight_),
                            .bias = view(bias_),
                            .ready = {},
                            .samples = 3},
                           [this](const Synced& synced) {
                             ASSERT_FALSE(synced.error) << synced.error->message;
                             EXPECT_EQ(synced.contributors, job_.workers);
                             EXPECT_TRUE(released_) << "factors are copied when they are handed in";
                             EXPECT_TRUE(same_bits(weight_, job_.right_product(iteration_)))
                                 << "rank " << rank_ << ", iteration " << iteration_;
                             EXPECT_TRUE(same_bits(bias_, job_.right_bias(iteration_)))
                                 << "rank " << rank_ << ", iteration " << iteration_;
                             one_done();
                           });
  }

  void one_done() {
    if (--left_ == 0) std::exchange(then_, nullptr)();
  }

  const WireJob& job_;
  std::size_t rank_;
  runtime::sim::SimCompute compute_;
  std::mt19937_64 order_;
  Iteration iteration_ = 0;
  std::size_t left_ = 0;
  std::function<void()> then_;
  std::vector<Floats> dense_;
  std::vector<double> exact_;
  Floats weight_;
  Floats bias_;
  bool released_ = false;
  std::vector<std::unique_ptr<void, void (*)(void*)>> spent_;  // so that reading them is no use of freed memory
};

// The workers of a job in an unruly world.
struct WireSwarm {
  explicit WireSwarm(const WireJob& job, std::uint64_t seed)
      : world({.seed = seed,
               .bytes_per_second = seed % 3 == 0 ? 1e8 : 1e9,
               .task_jitter_max = std::chrono::microseconds(30),
               .shuffle_delay_max = std::chrono::microseconds(seed % 4 == 0 ? 3'000 : 300)}) {
    for (std::uint32_t rank = 0; rank < job.workers; ++rank) members.push_back(Member{rank});
    for (const Member member : members) world.add(member);
    for (std::size_t a = 0; a < members.size(); ++a) {
      for (std::size_t b = 0; b < a; ++b) world.at(members[a]).connect(members[b], {}, std::chrono::seconds(1));
    }
    world.run_for(std::chrono::milliseconds(1));
    for (std::size_t rank = 0; rank < job.workers; ++rank) {
      workers.push_back(std::make_unique<WireWorker>(job, world.at(members[rank]), rank, members, seed * 10 + rank));
    }
  }
  // Whether all workers have made so many iterations within 100 s.
  bool run(Iteration iterations) {
    for (const auto& worker : workers) worker->run(iterations);
    const auto all_done = [&] {
      return std::all_of(workers.begin(), workers.end(), [&](const auto& worker) { return worker->iterations_done() == iterations; });
    };
    return world.run_until(all_done, world.now() + std::chrono::seconds(100));
  }

  runtime::sim::SimWorld world;
  std::vector<Member> members;
  std::vector<std::unique_ptr<WireWorker>> workers;
};

}  // namespace poseidon::test
