#include "runtime/relay_compute.h"

#include <gtest/gtest.h>

#include "runtime/sim/sim_world.h"

namespace poseidon::runtime {
namespace {

using sim::SimMember;

// Notes on which lane it is called, and ends products when the test says.
class HeldCompute : public Compute {
 public:
  void sum(SumJob, ComputeDoneFn) override { FAIL() << "sums are made on the lane that asks"; }
  void product(ProductJob job, ComputeDoneFn done) override {
    rows.push_back(job.rows);
    held.push_back(std::move(done));
  }
  std::vector<std::size_t> rows;
  std::vector<ComputeDoneFn> held;
};

struct RelayComputeTest : ::testing::Test {
  RelayComputeTest() : home_lane(world.add(Member{0})), lane(world.add_lane(Member{0})) {
    home = std::make_shared<ProductHome>(home_lane, compute);
    relay = std::make_unique<RelayCompute>(lane, home);
  }
  void settle() { world.run_for(std::chrono::microseconds(1)); }

  sim::SimWorld world{{}};
  SimMember& home_lane;
  SimMember& lane;
  HeldCompute compute;
  std::shared_ptr<ProductHome> home;
  std::unique_ptr<RelayCompute> relay;
};

TEST_F(RelayComputeTest, ProductsAreMadeAtHomeAndTheirEndComesBack) {
  std::optional<std::optional<Error>> end;
  relay->product({.rows = 7}, [&](const std::optional<Error>& error) { end = error; });
  EXPECT_TRUE(compute.rows.empty()) << "not on the lane that asks";
  settle();
  ASSERT_EQ(compute.rows, (std::vector<std::size_t>{7}));
  compute.held[0](Error{ErrorCode::kSystem, "no memory"});
  EXPECT_FALSE(end) << "not on the home lane";
  settle();
  ASSERT_TRUE(end && *end);
  EXPECT_EQ((*end)->message, "no memory");
}

TEST_F(RelayComputeTest, SumsAreMadeAtOnce) {
  float numbers[] = {1.5f, 2.0f};
  float out = 0;
  bool done = false;
  SumJob job;
  for (float& number : numbers) job.addends.push_back(reinterpret_cast<const std::byte*>(&number));
  job.out = reinterpret_cast<std::byte*>(&out);
  job.elements = 1;
  relay->sum(std::move(job), [&](const std::optional<Error>& error) { done = !error; });
  EXPECT_TRUE(done);
  EXPECT_EQ(out, 3.5f);
}

TEST_F(RelayComputeTest, WhatTheClosedHomeIsAskedIsDropped) {
  bool called = false;
  relay->product({.rows = 1}, [&](const std::optional<Error>&) { called = true; });
  settle();
  relay->product({.rows = 2}, [&](const std::optional<Error>&) { called = true; });
  home->close();
  settle();
  EXPECT_EQ(compute.rows, (std::vector<std::size_t>{1}));
  compute.held[0](std::nullopt);
  settle();
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace poseidon::runtime
