// The engine of one host's workers, asked directly: sums to the bit, who is counted, failures, waits.
#include "host/host_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/half.h"
#include "plan/hosts.h"
#include "runtime/sim/sim_memory.h"
#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"
#include "support/seeds.h"

namespace poseidon::host {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

plan::HostGroups groups(std::vector<std::vector<int>> numbers) {
  plan::HostGroups result;
  for (const std::vector<int>& group : numbers) {
    result.emplace_back();
    for (const int rank : group) result.back().push_back(Rank{rank});
  }
  return result;
}

// Workers of a few hosts in virtual time, whom a test hands gradients for.
class Workers {
 public:
  Workers(Model model, plan::Plan plan, runtime::sim::SimOptions options = {}) : model_(std::move(model)), plan_(std::move(plan)), world_(options) {
    for (int rank = 0; rank < plan_.workers; ++rank) members_.push_back(Member{static_cast<std::uint32_t>(20 + rank)});
    for (const Member member : members_) world_.add(member);
    for (const Member a : members_) {
      for (const Member b : members_) {
        if (b < a) world_.at(a).connect(b, {}, 1s);
      }
    }
    world_.run_for(10ms);
    for (int rank = 0; rank < plan_.workers; ++rank) add(Rank{rank});
  }

  session::Engine& engine(int rank) { return *engines_[static_cast<std::size_t>(rank)]; }
  runtime::sim::SimWorld& world() { return world_; }
  Member member(int rank) const { return members_[static_cast<std::size_t>(rank)]; }
  // Runs until `count` callbacks have come, or 10 s.
  bool wait_for(std::size_t count) {
    return world_.run_until([&] { return synced.size() >= count; }, world_.now() + 10s);
  }
  SyncedFn note() {
    return [this](const Synced& s) { synced.push_back(s); };
  }
  std::vector<Synced> synced;

 private:
  void add(Rank self) {
    runtime::sim::SimMember& member = world_.at(members_[static_cast<std::size_t>(index(self))]);
    computes_.push_back(std::make_unique<runtime::sim::SimCompute>(member, runtime::sim::SimCompute::Speeds{}));
    memories_.push_back(std::make_unique<runtime::sim::SimMemory>(host_, members_[static_cast<std::size_t>(index(self))]));
    const plan::HostPlace place = plan::host_place(plan_, self);
    std::unique_ptr<session::EngineSession> network;
    if (plan_.hosts.size() > 1 && place.place == 0) {
      session::EngineOptions options{.self = Rank{static_cast<std::int32_t>(place.group)},
                                     .members = {},
                                     .model = plan::network_model(model_, plan_.hosts),
                                     .plan = plan::network_plan(plan_),
                                     .leaders = plan::leaders_of(plan_.hosts)};
      for (const auto& group : plan_.hosts) options.members.push_back(members_[static_cast<std::size_t>(index(group[0]))]);
      network = session::EngineSession::create(member, member, *computes_.back(), std::move(options)).value();
    }
    engines_.push_back(std::make_unique<HostEngine>(
        member, member, *computes_.back(), *memories_.back(), std::move(network),
        HostEngineOptions{.self = self, .members = members_, .model = model_, .plan = plan_, .wait_max = 60s}));
  }

  Model model_;
  plan::Plan plan_;
  runtime::sim::SimWorld world_;
  runtime::sim::SimHost host_;
  std::vector<Member> members_;
  std::vector<std::unique_ptr<runtime::sim::SimCompute>> computes_;
  std::vector<std::unique_ptr<runtime::sim::SimMemory>> memories_;
  std::vector<std::unique_ptr<session::Engine>> engines_;
};

Model dense_model(std::size_t elements, DType dtype = DType::kFloat32) {
  return {{{"w", {static_cast<std::int64_t>(elements)}, dtype}}, {{"l", {TensorId{0}}, 0}}};
}

plan::Plan dense_plan(int workers, plan::HostGroups hosts) {
  return {.workers = workers, .layers = {{"l", Scheme::kPs, {}, Rank{0}}}, .hosts = std::move(hosts)};
}

template <typename T>
TensorView view(std::vector<T>& values, DType dtype) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(T), dtype, {}};
}

// The sum as the plan says it: within each group in the order of ranks, then over the groups.
template <typename T>
std::vector<T> sum_by_groups(const plan::HostGroups& hosts, const std::vector<std::vector<T>>& gradients, const std::vector<bool>& present) {
  std::optional<std::vector<T>> total;
  const auto add = [](std::optional<std::vector<T>>& to, const std::vector<T>& from) {
    if (!to) {
      to = from;
      return;
    }
    for (std::size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
  };
  for (const std::vector<Rank>& group : hosts) {
    std::optional<std::vector<T>> of_group;
    for (const Rank rank : group) {
      const std::size_t r = static_cast<std::size_t>(index(rank));
      if (present[r]) add(of_group, gradients[r]);
    }
    if (of_group) add(total, *of_group);
  }
  return *total;
}

// One random job with one dense tensor; several iterations.
template <typename T>
void check_sums(std::uint64_t seed, DType dtype) {
  std::mt19937_64 random(seed);
  const int workers = 2 + static_cast<int>(random() % 6);
  const std::uint64_t host_count = 1 + random() % 3;
  plan::HostGroups all(host_count);
  for (int rank = 0; rank < workers; ++rank) all[random() % host_count].push_back(Rank{rank});
  std::erase_if(all, [](const auto& group) { return group.empty(); });
  std::sort(all.begin(), all.end());
  if (all.size() == static_cast<std::size_t>(workers)) return;
  const std::size_t elements = seed % 4 == 0 ? 1 + random() % 9 : 1 + random() % 150'000;
  Workers job(dense_model(elements, dtype), dense_plan(workers, all),
              {.seed = seed, .task_jitter_max = 10us, .shuffle_delay_max = seed % 2 == 0 ? 500us : 0us});
  std::vector<std::shared_ptr<std::byte>> memory;
  std::vector<std::vector<T>> own(static_cast<std::size_t>(workers), std::vector<T>(elements));
  for (int rank = 0; rank < workers; ++rank) {
    memory.push_back(random() % 2 == 0 ? job.engine(rank).allocate(elements * sizeof(T), {}).value() : nullptr);
  }
  for (Iteration iteration = 7; iteration < 11; ++iteration) {
    std::vector<std::vector<T>> gradients(static_cast<std::size_t>(workers));
    std::vector<bool> present;
    for (std::vector<T>& gradient : gradients) {
      // Of very different sizes, so that the order of the additions shows.
      for (std::size_t i = 0; i < elements; ++i) {
        gradient.push_back(static_cast<T>(std::ldexp(static_cast<double>(random() % 2'000'001) - 1e6, static_cast<int>(random() % 30))));
      }
      present.push_back(random() % 4 != 0);
    }
    const auto contributors = static_cast<std::uint32_t>(std::count(present.begin(), present.end(), true));
    job.synced.clear();
    std::vector<int> order(static_cast<std::size_t>(workers));
    for (int rank = 0; rank < workers; ++rank) order[static_cast<std::size_t>(rank)] = rank;
    std::shuffle(order.begin(), order.end(), random);
    for (const int rank : order) {
      const std::size_t r = static_cast<std::size_t>(rank);
      TensorView place = view(own[r], dtype);
      if (memory[r]) place.data = memory[r].get();
      std::memcpy(place.data, gradients[r].data(), place.bytes);
      if (present[r]) {
        job.engine(rank).submit(TensorId{0}, iteration, {.gradient = place, .ready = {}, .samples = static_cast<std::uint32_t>(rank + 1)}, job.note());
      } else {
        job.engine(rank).submit_absent(TensorId{0}, iteration, place, job.note());
      }
      if (random() % 2 == 0) job.world().run_for(std::chrono::microseconds(random() % 200));
    }
    ASSERT_TRUE(job.wait_for(static_cast<std::size_t>(workers)));
    std::uint64_t samples = 0;
    for (int rank = 0; rank < workers; ++rank) samples += present[static_cast<std::size_t>(rank)] ? static_cast<std::uint64_t>(rank + 1) : 0;
    for (const Synced& synced : job.synced) {
      ASSERT_FALSE(synced.error.has_value()) << synced.error->message;
      EXPECT_EQ(synced.iteration, iteration);
      EXPECT_EQ(synced.contributors, contributors);
      EXPECT_EQ(synced.samples, samples);
    }
    for (int rank = 0; rank < workers; ++rank) {
      const std::size_t r = static_cast<std::size_t>(rank);
      const std::byte* const result = memory[r] ? memory[r].get() : reinterpret_cast<const std::byte*>(own[r].data());
      const std::vector<T> expected = contributors == 0 ? gradients[r] : sum_by_groups(all, gradients, present);
      ASSERT_EQ(std::memcmp(result, expected.data(), elements * sizeof(T)), 0) << "rank " << rank << ", iteration " << iteration;
      if (dtype != DType::kFloat64 || contributors == 0) continue;
      for (std::size_t i = 0; i < elements; ++i) {
        T plain = 0, size = 0;
        for (std::size_t w = 0; w < gradients.size(); ++w) {
          if (!present[w]) continue;
          plain += gradients[w][i];
          size += std::abs(gradients[w][i]);
        }
        ASSERT_NEAR(static_cast<double>(expected[i]), static_cast<double>(plain), 1e-12 * static_cast<double>(size));
      }
    }
  }
}

TEST(HostEngine, SumsAreThoseOfThePlanToTheBit) {
  for (const std::uint64_t seed : test::seeds(150)) {
    SCOPED_TRACE(test::replay(seed));
    check_sums<float>(seed, DType::kFloat32);
    check_sums<double>(seed, DType::kFloat64);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(HostEngine, NumbersOfSixteenBitsAreRoundedOncePerHost) {
  // 256 + 1 + 1 is 258 when rounded once; bfloat16 has eight bits, so 256 + 1 alone would stay 256.
  Workers job(dense_model(1, DType::kBFloat16), dense_plan(3, groups({{0, 1, 2}})));
  std::vector<std::vector<std::uint16_t>> gradients;
  for (const float value : {256.0f, 1.0f, 1.0f}) gradients.push_back({base::to_bfloat16(value)});
  for (int rank = 0; rank < 3; ++rank) {
    job.engine(rank).submit(TensorId{0}, 0, {.gradient = view(gradients[static_cast<std::size_t>(rank)], DType::kBFloat16), .ready = {}}, job.note());
  }
  ASSERT_TRUE(job.wait_for(3));
  for (const auto& gradient : gradients) EXPECT_EQ(base::from_bfloat16(gradient[0]), 258.0f);
}

// Integers are multiplied and added without rounding, so there is one right answer.
TEST(HostEngine, FactorsOfAllHostsAreMultiplied) {
  for (const auto& hosts : {groups({{0, 1, 2, 3}}), groups({{0, 2}, {1, 3}}), groups({{0, 1, 3}, {2}})}) {
    for (const Scheme scheme : {Scheme::kSfb, Scheme::kAdam, Scheme::kBlock}) {
      constexpr std::size_t m = 5, n = 7, k = 3;
      const Model model{{{"w", {m, n}, DType::kFloat32}, {"b", {m}, DType::kFloat32}}, {{"fc", {TensorId{0}, TensorId{1}}, k}}};
      plan::Plan plan{.workers = 4, .layers = {{"fc", scheme, {1, static_cast<int>(hosts.size())}, Rank{0}}}, .hosts = hosts};
      Workers job(model, plan);
      std::mt19937_64 random(3);
      for (Iteration iteration = 0; iteration < 3; ++iteration) {
        std::vector<std::vector<float>> u(4), v(4), weight(4, std::vector<float>(m * n)), bias(4, std::vector<float>(m));
        std::vector<float> expected(m * n), expected_bias(m);
        job.synced.clear();
        for (std::size_t rank = 0; rank < 4; ++rank) {
          const std::size_t rows = rank == 2 ? iteration : k;  // one worker has fewer rows, and none at first
          for (std::size_t i = 0; i < rows * m; ++i) u[rank].push_back(static_cast<float>(random() % 19) - 9);
          for (std::size_t i = 0; i < rows * n; ++i) v[rank].push_back(static_cast<float>(random() % 19) - 9);
          for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t i = 0; i < m; ++i) {
              expected_bias[i] += u[rank][r * m + i];
              for (std::size_t j = 0; j < n; ++j) expected[i * n + j] += u[rank][r * m + i] * v[rank][r * n + j];
            }
          }
          job.engine(static_cast<int>(rank))
              .submit_factors(LayerId{0}, iteration,
                              {.outputs = view(u[rank], DType::kFloat32),
                               .inputs = view(v[rank], DType::kFloat32),
                               .rows = rows,
                               .hold = nullptr,
                               .weight = view(weight[rank], DType::kFloat32),
                               .bias = view(bias[rank], DType::kFloat32),
                               .ready = {},
                               .samples = 2},
                              job.note());
        }
        ASSERT_TRUE(job.wait_for(4));
        for (const Synced& synced : job.synced) {
          EXPECT_EQ(synced.contributors, 4u);
          EXPECT_EQ(synced.samples, 8u);
        }
        for (std::size_t rank = 0; rank < 4; ++rank) {
          EXPECT_EQ(weight[rank], expected) << "rank " << rank;
          EXPECT_EQ(bias[rank], expected_bias) << "rank " << rank;
        }
      }
    }
  }
}

TEST(HostEngine, AFactorsHoldIsReleasedBeforeTheSumIsThere) {
  const Model model{{{"w", {2, 2}, DType::kFloat32}}, {{"fc", {TensorId{0}}, 1}}};
  Workers job(model, {.workers = 2, .layers = {{"fc", Scheme::kSfb, {}, Rank{0}}}, .hosts = groups({{0, 1}})});
  std::vector<float> u(2), v(2), weight(4);
  auto hold = std::make_shared<int>(0);
  job.engine(0).submit_factors(LayerId{0}, 0,
                               {.outputs = view(u, DType::kFloat32), .inputs = view(v, DType::kFloat32), .rows = 1, .hold = hold,
                                .weight = view(weight, DType::kFloat32), .bias = {}, .ready = {}},
                               job.note());
  job.world().run_for(100ms);
  EXPECT_EQ(hold.use_count(), 1) << "the rows have been copied";
  EXPECT_TRUE(job.synced.empty());
}

TEST(HostEngine, TheValuesOfRankZeroComeToAll) {
  for (const auto& hosts : {groups({{0, 1, 2, 3, 4}}), groups({{0, 3}, {1, 2}, {4}})}) {
    Model model{{{"a", {100'000}, DType::kFloat32}, {"none", {0}, DType::kFloat32}, {"b", {3}, DType::kFloat32}},
                {{"l", {TensorId{0}, TensorId{1}, TensorId{2}}, 0}}};
    Workers job(model, dense_plan(5, hosts));
    std::vector<std::vector<std::vector<float>>> values(5);
    int done = 0;
    for (int rank = 4; rank >= 0; --rank) {
      auto& own = values[static_cast<std::size_t>(rank)];
      const float value = rank == 0 ? 3.5f : -1.0f;
      own = {std::vector<float>(100'000, value), {}, std::vector<float>(3, value)};
      std::vector<TensorView> views;
      for (auto& tensor : own) views.push_back(view(tensor, DType::kFloat32));
      job.engine(rank).broadcast(views, [&] { ++done; });
    }
    ASSERT_TRUE(job.world().run_until([&] { return done == 5; }, job.world().now() + 10s));
    for (const auto& own : values) EXPECT_EQ(own, values[0]);
    EXPECT_EQ(values[4][2][2], 3.5f);
  }
}

TEST(HostEngine, SaysWhomItWaitsFor) {
  Workers job(dense_model(100'000), dense_plan(4, groups({{0, 1}, {2, 3}})));
  std::vector<std::vector<float>> gradients(4, std::vector<float>(100'000));
  const auto submit = [&](int rank) {
    job.engine(rank).submit(TensorId{0}, 3, {.gradient = view(gradients[static_cast<std::size_t>(rank)], DType::kFloat32), .ready = {}}, job.note());
  };
  submit(0);
  submit(2);
  submit(3);
  job.world().run_for(5s);
  EXPECT_THAT(job.engine(0).overdue(2s, 5), testing::ElementsAre("rank 0 waits for rank 1 to hand in its part of w, iteration 3, since 5.0 s",
                                                               HasSubstr("the server shard of rank 0 waits for rank 0 to push w")));
  EXPECT_THAT(job.engine(3).overdue(2s, 5), testing::ElementsAre("rank 3 waits for rank 2 to bring the sum over the hosts of w, iteration 3, since 5.0 s"));
  EXPECT_THAT(job.engine(2).overdue(2s, 5), testing::Contains(HasSubstr("the server shard of rank 2 waits for rank 0")))
      << "by ranks of the job, and not by numbers of hosts";
  EXPECT_TRUE(job.engine(1).overdue(2s, 5).empty());
  submit(1);
  EXPECT_TRUE(job.wait_for(4));
}

TEST(HostEngine, GivesUpAfterItsLimit) {
  Workers job(dense_model(10), dense_plan(2, groups({{0, 1}})));
  std::vector<float> gradient(10);
  job.engine(0).submit(TensorId{0}, 0, {.gradient = view(gradient, DType::kFloat32), .ready = {}}, job.note());
  job.world().run_for(62s);
  ASSERT_THAT(job.synced, SizeIs(1));
  ASSERT_TRUE(job.synced[0].error.has_value());
  EXPECT_EQ(job.synced[0].error->code, ErrorCode::kTimeout);
  EXPECT_THAT(job.synced[0].error->message, AllOf(HasSubstr("gave up"), HasSubstr("rank 1")));
}

TEST(HostEngine, AFailureEndsEveryWaitOnceAndLaterSubmissionsAtOnce) {
  Workers job(dense_model(1'000'000), dense_plan(3, groups({{0, 1}, {2}})));
  std::vector<std::vector<float>> gradients(3, std::vector<float>(1'000'000));
  for (int rank = 0; rank < 3; ++rank) {
    job.engine(rank).submit(TensorId{0}, 0, {.gradient = view(gradients[static_cast<std::size_t>(rank)], DType::kFloat32), .ready = {}}, job.note());
  }
  job.world().run_for(120us);  // in the midst of it
  for (int rank = 0; rank < 3; ++rank) job.engine(rank).fail(Error{ErrorCode::kAborted, "over"});
  job.world().run_for(1s);
  EXPECT_THAT(job.synced, SizeIs(3));
  job.engine(1).submit(TensorId{0}, 1, {.gradient = view(gradients[1], DType::kFloat32), .ready = {}}, job.note());
  job.world().run_for(1s);
  ASSERT_THAT(job.synced, SizeIs(4));
  for (const Synced& synced : job.synced) {
    ASSERT_TRUE(synced.error.has_value());
    EXPECT_EQ(synced.error->message, "over");
  }
}

// A worker of the host that speaks nonsense ends the wait with a sentence that names it.
TEST(HostEngine, WhatCannotBeMeantIsAnError) {
  using wire::HostMessage;
  using wire::HostMessageKind;
  const auto answer = [](HostMessage message, int from = 1) {
    Workers job(dense_model(1000), dense_plan(4, groups({{0, 1, 2}, {3}})));
    std::vector<float> gradient(1000);
    job.engine(0).submit(TensorId{0}, 5, {.gradient = view(gradient, DType::kFloat32), .ready = {}}, job.note());
    job.world().run_for(10ms);
    const auto body = wire::encode_host_message(message);
    std::vector<std::byte> bytes(body.begin(), body.end());
    runtime::Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kHost, .bytes = static_cast<std::uint32_t>(bytes.size())});
    frame.payload.push_back({{bytes.data(), bytes.size(), {}, 0}, 0, bytes.size()});
    job.world().at(job.member(from)).send({job.member(0), runtime::Lane{0}}, std::move(frame), nullptr);
    job.world().run_for(10ms);
    return job.synced.empty() || !job.synced[0].error ? std::string("accepted") : job.synced[0].error->message;
  };
  const HostMessage ready{.kind = HostMessageKind::kReady, .tensor = TensorId{0}, .iteration = 5, .places = {{{1 << 20, 4000}, {}, {}}}};
  EXPECT_THAT(answer(ready), HasSubstr("member 21 has no shared memory at 1048576"));
  EXPECT_THAT(answer(ready, 3), HasSubstr("member 23 is of another host"));
  HostMessage wrong = ready;
  wrong.places[0].bytes = 3996;
  EXPECT_THAT(answer(wrong), HasSubstr("offers 3996 bytes of shared memory for w, it must be 4000"));
  wrong = ready;
  wrong.places[1] = {0, 1};
  EXPECT_THAT(answer(wrong), HasSubstr("it must be 0"));
  wrong = ready;
  wrong.tensor = TensorId{7};
  EXPECT_THAT(answer(wrong), HasSubstr("tensor 7, which is not combined"));
  EXPECT_THAT(answer({.kind = HostMessageKind::kTaken, .tensor = TensorId{0}, .iteration = 5}), HasSubstr("there is nothing to take"));
  EXPECT_THAT(answer({.kind = HostMessageKind::kResult, .tensor = TensorId{0}, .iteration = 5}), HasSubstr("from the leader"));
  EXPECT_THAT(answer({.kind = HostMessageKind::kValue, .tensor = TensorId{0}}), HasSubstr("not combined in shared memory"));
  // A share that is not the sender's to do: 4,000 bytes are one member's.
  std::string refused;
  for (int from = 1; from < 3; ++from) refused += answer({.kind = HostMessageKind::kShareDone, .tensor = TensorId{0}, .iteration = 5}, from);
  EXPECT_THAT(refused, HasSubstr("it has no share to do"));
}

TEST(HostEngine, ARoundTwoAheadIsRefused) {
  Workers job(dense_model(1000), dense_plan(2, groups({{0, 1}})));
  std::vector<float> gradient(1000);
  job.engine(0).submit(TensorId{0}, 5, {.gradient = view(gradient, DType::kFloat32), .ready = {}}, job.note());
  const auto memory = job.engine(1).allocate(4000, {}).value();
  for (const Iteration iteration : {6u, 7u}) {
    const auto body = wire::encode_host_message({.kind = wire::HostMessageKind::kReady, .iteration = iteration,
                                                 .places = {{{reinterpret_cast<std::uintptr_t>(memory.get()), 4000}, {}, {}}}});
    auto bytes = std::make_shared<std::vector<std::byte>>(body.begin(), body.end());
    runtime::Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kHost, .bytes = static_cast<std::uint32_t>(bytes->size())});
    frame.payload.push_back({{bytes->data(), bytes->size(), {}, 0}, 0, bytes->size()});
    job.world().at(job.member(1)).send({job.member(0), runtime::Lane{0}}, std::move(frame), [bytes] {});
    job.world().run_for(10ms);
    EXPECT_EQ(job.synced.size(), iteration - 6) << "one round ahead is possible, two are not";
  }
  EXPECT_THAT(job.synced[0].error->message, HasSubstr("iteration 7: its turn is over, or has not come"));
}

}  // namespace
}  // namespace poseidon::host
