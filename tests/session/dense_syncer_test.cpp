// One worker's sink for the sums of all servers: what it takes, and what it refuses.
#include "session/dense_syncer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "runtime/sim/sim_world.h"

namespace poseidon::session {
namespace {

using namespace std::chrono_literals;
using runtime::sim::SimMember;
using wire::PartHeader;

struct Nowhere : runtime::Outbox {
  void enqueue(runtime::SendRequest) override {}
};

// Rank 0 of three, of which each serves 40,000 bytes of one tensor.
struct DenseSyncerTest : ::testing::Test {
  DenseSyncerTest() {
    model.tensors = {{"w", {30'000}, DType::kFloat32}};
    model.layers = {{"l", {TensorId{0}}, 0}};
    for (const Member peer : {members[1], members[2]}) self.connect(peer, {}, 1s);
    world.run_for(1s);
    store = std::make_unique<store::BspStore>(
        self, compute, nowhere, store::BspStoreOptions{.self = Rank{0}, .members = members, .model = &model, .layer_of = {0}, .chunks = &chunks});
    syncer = std::make_unique<DenseSyncer>(self, self, nowhere, *store,
                                           DenseSyncerOptions{.self = Rank{0},
                                                              .workers = 3,
                                                              .members = members,
                                                              .tensor = TensorId{0},
                                                              .name = "w",
                                                              .layer = 0,
                                                              .bytes = 120'000,
                                                              .chunks = chunks[0]});
    syncer->submit(4, {.gradient = {reinterpret_cast<std::byte*>(gradient.data()), 120'000, DType::kFloat32, {}}, .ready = {}, .samples = 1},
                   true, [this](const Synced&) { ++synced; });
  }
  // Is a part of the sum, of 7s, taken from the member?
  bool takes(std::uint32_t from, std::uint64_t offset, std::uint32_t bytes, std::uint16_t flags = 0, Iteration iteration = 4) {
    const std::size_t errors = self.protocol_errors().size();
    runtime::Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kSum, .flags = flags, .iteration = iteration, .offset = offset, .bytes = bytes, .contributors = 3});
    if (bytes > 0) frame.payload.push_back({{reinterpret_cast<std::byte*>(sevens.data()), 120'000, {}, 0}, 0, bytes});
    world.at(Member{from}).send({Member{0}, runtime::Lane{0}}, std::move(frame), nullptr);
    world.run_for(10ms);
    return self.protocol_errors().size() == errors;
  }

  runtime::sim::SimWorld world{{}};
  std::vector<Member> members = {Member{0}, Member{1}, Member{2}};
  SimMember& self = (world.add(Member{1}), world.add(Member{2}), world.add(Member{0}));
  runtime::SimpleCompute compute;
  Nowhere nowhere;
  Model model;
  std::vector<std::vector<plan::Chunk>> chunks = {{{0, 40'000, Rank{0}}, {40'000, 80'000, Rank{1}}, {80'000, 120'000, Rank{2}}}};
  std::vector<float> gradient = std::vector<float>(30'000, 1.0f);
  std::vector<float> sevens = std::vector<float>(30'000, 7.0f);
  std::unique_ptr<store::BspStore> store;
  std::unique_ptr<DenseSyncer> syncer;
  int synced = 0;
};

TEST_F(DenseSyncerTest, TakesEachServersSumInItsPlaceAndNothingTwice) {
  EXPECT_TRUE(takes(2, 80'000, 30'000));
  EXPECT_TRUE(takes(1, 40'000, 40'000));
  EXPECT_TRUE(takes(2, 110'000, 10'000));
  EXPECT_EQ(synced, 0) << "its own shard's is missing";
  EXPECT_EQ(gradient[9'999], 1.0f);
  EXPECT_EQ(gradient[10'000], 7.0f);
  EXPECT_EQ(gradient[29'999], 7.0f);
  EXPECT_FALSE(takes(1, 40'000, 4));
}

TEST_F(DenseSyncerTest, RefusesAnotherServersChunk) { EXPECT_FALSE(takes(2, 40'000, 40'000)); }
TEST_F(DenseSyncerTest, RefusesWhatItSumsItself) { EXPECT_FALSE(takes(1, 0, 40'000)); }
TEST_F(DenseSyncerTest, RefusesWhatGoesBeyondTheChunk) { EXPECT_FALSE(takes(1, 70'000, 20'000)); }
TEST_F(DenseSyncerTest, RefusesWhatGoesBeyondTheTensor) { EXPECT_FALSE(takes(2, 110'000, 10'004)); }
TEST_F(DenseSyncerTest, RefusesAnotherIteration) { EXPECT_FALSE(takes(1, 40'000, 40'000, 0, 5)); }
TEST_F(DenseSyncerTest, RefusesAnAbsenceInsideAChunk) { EXPECT_FALSE(takes(1, 40'064, 0, wire::kAbsent)); }
TEST_F(DenseSyncerTest, RefusesAnAbsenceWithAPayload) { EXPECT_FALSE(takes(1, 40'000, 8, wire::kAbsent)); }
TEST_F(DenseSyncerTest, RefusesAnAbsenceAfterAPart) {
  EXPECT_TRUE(takes(1, 40'000, 64));
  EXPECT_FALSE(takes(1, 40'000, 0, wire::kAbsent));
}

TEST_F(DenseSyncerTest, AnAbsenceStandsForTheChunk) {
  EXPECT_TRUE(takes(1, 40'000, 0, wire::kAbsent));
  EXPECT_FALSE(takes(1, 40'000, 40'000));
}

TEST_F(DenseSyncerTest, AfterAFailureNothingIsTaken) {
  syncer->fail({ErrorCode::kPeerLost, "gone"});
  EXPECT_EQ(synced, 1);
  EXPECT_FALSE(takes(1, 40'000, 40'000));
}

TEST_F(DenseSyncerTest, ASumOfItsOwnThatIsCompleteAfterAFailureIsOfNoUse) {
  self.set_acceptor(wire::FrameType::kPush, [this](Member from, const PartHeader& part) { return store->accept_push(from, part); });
  syncer->fail({ErrorCode::kPeerLost, "gone"});
  for (const std::uint32_t from : {1u, 2u}) {
    runtime::Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kPush, .iteration = 4, .offset = 0, .bytes = 40'000, .contributors = 1, .samples = 1});
    frame.payload.push_back({{reinterpret_cast<std::byte*>(sevens.data()), 120'000, {}, 0}, 0, 40'000});
    world.at(Member{from}).send({Member{0}, runtime::Lane{0}}, std::move(frame), nullptr);
  }
  world.run_for(1s);
  EXPECT_TRUE(self.protocol_errors().empty());
  EXPECT_EQ(gradient[0], 15.0f) << "the store had everything, and has summed";
  EXPECT_EQ(synced, 1);
}

}  // namespace
}  // namespace poseidon::session
