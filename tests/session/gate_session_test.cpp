// Sessions at a closed gate: what they say of it, and that they believe no server's nonsense.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"
#include "support/scripted_worker.h"

namespace poseidon::test {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr std::size_t kWorkers = 3;
constexpr std::size_t kElements = 30'000;  // three chunks of 40,000 bytes, one for each server
constexpr TensorId kFirst{0};
constexpr TensorId kMiddle{1};
constexpr TensorId kLast{2};

class GateSessionTest : public ::testing::Test {
 protected:
  GateSessionTest() {
    Model model;
    for (const char* const name : {"first", "middle", "last"}) model.tensors.push_back({name, {kElements}, DType::kFloat32});
    model.layers = {{"l0", {kFirst}, 0}, {"l1", {kMiddle}, 0}, {"l2", {kLast}, 0}};
    for (std::uint32_t rank = 0; rank < kWorkers; ++rank) {
      world.add(Member{rank});
      for (std::uint32_t lower = 0; lower < rank; ++lower) world.at(Member{rank}).connect(Member{lower}, {}, 1s);
    }
    world.run_for(1ms);
    for (std::uint32_t rank = 0; rank < kWorkers; ++rank) {
      runtime::sim::SimMember& member = world.at(Member{rank});
      Worker& worker = workers[rank];
      worker.compute = std::make_unique<runtime::sim::SimCompute>(member, runtime::sim::SimCompute::Speeds{});
      worker.session = session::EngineSession::create(member, member, *worker.compute,
                                                      {.self = Rank{static_cast<std::int32_t>(rank)},
                                                       .members = {Member{0}, Member{1}, Member{2}},
                                                       .model = model,
                                                       .plan = uniform_plan(model, kWorkers, Scheme::kPs),
                                                       .staging_bytes_max = 0})
                           .value();
    }
  }
  void submit(std::size_t rank, TensorId tensor, Iteration iteration = 0) {
    Worker& worker = workers[rank];
    std::vector<float>& gradient = worker.gradients[index(tensor)];
    gradient.assign(kElements, static_cast<float>(rank + 1));
    worker.session->submit(tensor, iteration,
                           {.gradient = {reinterpret_cast<std::byte*>(gradient.data()), gradient.size() * 4, DType::kFloat32, {}},
                            .ready = {},
                            .samples = 1},
                           [&worker](const Synced& synced) {
                             if (synced.error) worker.trouble = synced.error->message;
                             ++worker.synced;
                           });
  }
  // Something that member 1 says of its gate to member 0.
  void say(const std::vector<std::byte>& body) {
    runtime::Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kGate, .bytes = static_cast<std::uint32_t>(body.size())});
    const auto copy = std::make_shared<std::vector<std::byte>>(body);
    frame.payload.push_back({runtime::Region{copy->data(), copy->size(), {}, 0}, 0, copy->size()});
    world.at(Member{1}).send({Member{0}, runtime::Lane{0}}, std::move(frame), [copy] {});
    world.run_for(10ms);
  }

  struct Worker {
    std::unique_ptr<runtime::sim::SimCompute> compute;
    std::unique_ptr<session::EngineSession> session;
    std::vector<float> gradients[3];
    int synced = 0;
    std::string trouble;
  };
  runtime::sim::SimWorld world{{}};
  Worker workers[kWorkers];
};

TEST_F(GateSessionTest, AWorkerThatKeepsPushesBackSaysSoAndTheyLeaveInTheEnd) {
  submit(1, kMiddle);
  world.run_for(10ms);
  submit(2, kLast);
  world.run_for(3s);
  EXPECT_THAT(workers[2].session->overdue(2s, 9),
              Contains("rank 2 keeps 1 push (39.1 KiB) back, because the server shard of rank 0 is near its cap for staging and "
                       "asks for other chunks first, since 3.0 s"));
  EXPECT_THAT(workers[0].session->overdue(2s, 9), Contains(HasSubstr("first of all it needs first of iteration 0 from all ranks")));
  for (const std::size_t rank : {2u, 1u, 0u}) submit(rank, kFirst);
  world.run_for(10ms);
  for (const Worker& worker : workers) EXPECT_EQ(worker.gradients[0], std::vector<float>(kElements, 6.0f));
  for (const std::size_t rank : {0u, 2u}) submit(rank, kMiddle);
  for (const std::size_t rank : {0u, 1u}) submit(rank, kLast);
  world.run_for(10ms);
  for (const Worker& worker : workers) {
    EXPECT_EQ(worker.synced, 3);
    EXPECT_EQ(worker.trouble, "");
    EXPECT_EQ(worker.gradients[1], std::vector<float>(kElements, 6.0f));
    EXPECT_EQ(worker.gradients[2], std::vector<float>(kElements, 6.0f));
    EXPECT_TRUE(worker.session->scheduler().idle());
  }
}

// Each tensor counts its own iterations. Nobody hands in the first one before the last has gone through five, with no memory to
// spare, and each worker takes the other two in an order of its own.
TEST_F(GateSessionTest, ATensorMayBeIterationsAheadOfAnother) {
  for (Iteration iteration = 0; iteration < 5; ++iteration) {
    for (const std::size_t rank : {1u, 2u, 0u}) {
      submit(rank, kLast, iteration);
      world.run_for(10ms);
    }
    for (const Worker& worker : workers) {
      ASSERT_EQ(worker.synced, static_cast<int>(iteration) + 1);
      ASSERT_EQ(worker.gradients[2], std::vector<float>(kElements, 6.0f));
    }
  }
  for (Iteration iteration = 0; iteration < 2; ++iteration) {
    submit(0, kFirst, iteration);
    submit(1, kMiddle, iteration);
    submit(2, kLast, iteration + 5);
    world.run_for(10ms);
    submit(2, kMiddle, iteration);
    submit(1, kLast, iteration + 5);
    submit(0, kMiddle, iteration);
    world.run_for(10ms);
    submit(1, kFirst, iteration);
    submit(0, kLast, iteration + 5);
    submit(2, kFirst, iteration);
    world.run_for(10ms);
  }
  for (const Worker& worker : workers) {
    EXPECT_EQ(worker.synced, 11);
    EXPECT_EQ(worker.trouble, "");
    for (const std::vector<float>& gradient : worker.gradients) EXPECT_EQ(gradient, std::vector<float>(kElements, 6.0f));
    EXPECT_TRUE(worker.session->scheduler().idle());
  }
}

TEST_F(GateSessionTest, AServerThatAsksForWhatIsNotItsOwnEndsTheJob) {
  submit(0, kFirst);
  say(wire::encode_gate({.closing = 1, .open = false, .admitted = {{kLast, 8, 0}}}));
  EXPECT_EQ(workers[0].trouble, "member 1 asks for the chunk at 8 of tensor 2, which the plan does not give it");
}

TEST_F(GateSessionTest, AServerThatAsksForATensorThatIsNoneEndsTheJob) {
  submit(0, kFirst);
  say(wire::encode_gate({.closing = 1, .open = false, .admitted = {{TensorId{3}, 0, 0}}}));
  EXPECT_THAT(workers[0].trouble, HasSubstr("tensor 3, which the plan does not give it"));
}

TEST_F(GateSessionTest, AWordThatIsNoneEndsTheJob) {
  submit(0, kFirst);
  say(std::vector<std::byte>(15));
  EXPECT_EQ(workers[0].trouble, "member 1: a word of a gate has at least 16 bytes, this one has 15");
}

}  // namespace
}  // namespace poseidon::test
