#include "session/laned_engine.h"

#include <gtest/gtest.h>

#include <optional>

#include "runtime/sim/sim_world.h"

namespace poseidon::session {
namespace {

// Keeps what it is given, and ends it when the test says.
class HeldEngine : public Engine {
 public:
  Rank rank() const override { return Rank{1}; }
  int workers() const override { return 3; }
  Scheme scheme(LayerId) const override { return Scheme::kPs; }
  void submit(TensorId tensor, Iteration, const DenseGradient&, SyncedFn on_synced) override { held.emplace_back(tensor, std::move(on_synced)); }
  void submit_factors(LayerId layer, Iteration, const FactorGradient&, SyncedFn on_synced) override {
    held.emplace_back(TensorId{100 + index(layer)}, std::move(on_synced));
  }
  void submit_absent(TensorId tensor, Iteration, TensorView, SyncedFn on_synced) override { held.emplace_back(tensor, std::move(on_synced)); }
  Result<std::shared_ptr<std::byte>> allocate(std::size_t, Device) override { return std::shared_ptr<std::byte>(); }
  const plan::Plan& plan() const override { return plan_; }
  void broadcast(std::vector<TensorView> values, std::function<void()> done) override {
    for (const TensorView& view : values) broadcast_bytes.push_back(view.bytes);
    on_broadcast = std::move(done);
  }
  void fail(const Error& error) override { failed = error; }
  std::vector<std::string> overdue(runtime::Duration, std::size_t) const override { return sentences; }
  EngineUse use() const override { return used; }

  std::vector<std::pair<TensorId, SyncedFn>> held;
  std::vector<std::size_t> broadcast_bytes;
  std::function<void()> on_broadcast;
  std::optional<Error> failed;
  std::vector<std::string> sentences;
  EngineUse used;

 private:
  plan::Plan plan_;
};

// A large tensor, which lies on both lanes, a small one, which lies on one, and a factor layer.
struct LanedEngineTest : ::testing::Test {
  LanedEngineTest() {
    model.tensors = {{"large", {4 << 20}, DType::kFloat32}, {"small", {100'000}, DType::kFloat32}, {"fc", {64, 64}, DType::kFloat32}};
    model.layers = {{"a", {TensorId{0}}, 0}, {"b", {TensorId{1}}, 0}, {"c", {TensorId{2}}, 4}};
    plan::Plan plan{3, {{"a", Scheme::kPs, {}, Rank{0}}, {"b", Scheme::kPs, {}, Rank{0}}, {"c", Scheme::kSfb, {}, Rank{0}}}};
    deal = std::make_shared<plan::LaneDeal>(model, plan, plan::LaneDealOptions{.lanes = 2});
    world.add(Member{0});
    world.add_lane(Member{0});
    std::vector<EngineLane> lanes;
    for (std::size_t lane = 0; lane < 2; ++lane) {
      auto part = std::make_unique<HeldEngine>();
      parts[lane] = part.get();
      lanes.push_back({world.find(Member{0}, lane), [](const runtime::Task& task) { task(); }, std::move(part)});
    }
    engine = std::make_unique<LanedEngine>(model, deal, std::move(lanes));
  }
  // On that lane.
  void end(std::size_t lane, std::size_t which, const Synced& synced) {
    world.find(Member{0}, lane)->post([this, lane, which, synced] { parts[lane]->held[which].second(synced); });
    world.run_for(runtime::Duration(1000));
  }
  SyncedFn note() {
    return [this](const Synced& synced) { ends.push_back(synced); };
  }

  Model model;
  std::shared_ptr<plan::LaneDeal> deal;
  runtime::sim::SimWorld world{{}};
  HeldEngine* parts[2] = {};
  std::unique_ptr<LanedEngine> engine;
  std::vector<Synced> ends;
};

const Synced kGood{.error = std::nullopt, .iteration = 5, .contributors = 3, .samples = 12, .ready = {}};

TEST_F(LanedEngineTest, AGradientOnSeveralLanesEndsOnceWhenTheLastHasItsPart) {
  ASSERT_EQ(deal->lanes_of(TensorId{0}).size(), 2u);
  engine->submit(TensorId{0}, 5, {}, note());
  end(1, 0, kGood);
  EXPECT_TRUE(ends.empty());
  end(0, 0, kGood);
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(ends[0].contributors, 3u);
  EXPECT_EQ(ends[0].samples, 12u);
  EXPECT_EQ(ends[0].iteration, 5u);
  EXPECT_FALSE(ends[0].error);
}

TEST_F(LanedEngineTest, AnErrorOfOneLaneIsTheErrorOfAll) {
  engine->submit_absent(TensorId{0}, 5, {}, note());
  end(1, 0, {.error = Error{ErrorCode::kTimeout, "gave up"}, .iteration = 5, .contributors = 0, .samples = 0, .ready = {}});
  end(0, 0, kGood);
  ASSERT_EQ(ends.size(), 1u);
  ASSERT_TRUE(ends[0].error);
  EXPECT_EQ(ends[0].error->message, "gave up");
}

TEST_F(LanedEngineTest, WhatLivesOnOneLaneGoesThereAlone) {
  for (const TensorId tensor : {TensorId{1}, TensorId{2}}) {
    ASSERT_EQ(deal->lanes_of(tensor).size(), 1u);
    const std::size_t lane = deal->lanes_of(tensor).front();
    if (tensor == TensorId{1}) {
      engine->submit(tensor, 0, {}, note());
    } else {
      engine->submit_factors(LayerId{2}, 0, {}, note());
    }
    ASSERT_EQ(parts[lane]->held.size(), 1u);
    EXPECT_TRUE(parts[1 - lane]->held.empty());
    end(lane, 0, kGood);
    parts[lane]->held.clear();
  }
  EXPECT_EQ(ends.size(), 2u);
}

TEST_F(LanedEngineTest, NothingIsCalledBackAfterItIsGone) {
  engine->submit(TensorId{0}, 5, {}, note());
  const SyncedFn home = parts[0]->held[0].second;
  const SyncedFn other = parts[1]->held[0].second;
  home(kGood);
  other(kGood);  // posts the end home
  engine.reset();
  world.run_for(runtime::Duration(1000));
  EXPECT_TRUE(ends.empty());
}

TEST_F(LanedEngineTest, ValuesTravelOnOneLaneEachAndAreInWhenAllAre) {
  bool in = false;
  engine->broadcast({{nullptr, 16 << 20, DType::kFloat32, {}}, {nullptr, 400'000, DType::kFloat32, {}}, {nullptr, 16384, DType::kFloat32, {}}},
                    [&] { in = true; });
  for (std::size_t t = 0; t < 3; ++t) {
    EXPECT_EQ(parts[0]->broadcast_bytes[t] > 0, parts[1]->broadcast_bytes[t] == 0) << t;
  }
  parts[1]->on_broadcast();
  world.run_for(runtime::Duration(1000));
  EXPECT_FALSE(in);
  parts[0]->on_broadcast();
  world.run_for(runtime::Duration(1000));
  EXPECT_TRUE(in);
}

TEST_F(LanedEngineTest, UseIsTheSumAndWaitsAreToldOnce) {
  parts[0]->used = {.tensors = {{10, 1}, {0, 0}, {5, 5}}, .staging_bytes_max = 100};
  parts[1]->used = {.tensors = {{20, 2}, {7, 8}, {0, 0}}, .staging_bytes_max = 50};
  const EngineUse use = engine->use();
  EXPECT_EQ(use.tensors[0].sent, 30u);
  EXPECT_EQ(use.tensors[0].received, 3u);
  EXPECT_EQ(use.tensors[1].received, 8u);
  EXPECT_EQ(use.tensors[2].sent, 5u);
  EXPECT_EQ(use.staging_bytes_max, 150u);
  parts[0]->sentences = {"rank 0 waits"};
  parts[1]->sentences = {"rank 0 waits", "rank 1 waits", "rank 2 waits"};
  EXPECT_EQ(engine->overdue(runtime::Duration(0), 2), (std::vector<std::string>{"rank 0 waits", "rank 1 waits"}));
  engine->fail(Error{ErrorCode::kAborted, "over"});
  EXPECT_EQ(parts[0]->failed->message, "over");
  EXPECT_EQ(parts[1]->failed->message, "over");
}

}  // namespace
}  // namespace poseidon::session
