// What the server side refuses, and the order of its sums. Whole exchanges are in session/.
#include "store/bsp_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "runtime/sim/sim_world.h"

namespace poseidon::store {
namespace {

using ::testing::HasSubstr;
using wire::FrameType;
using wire::PartHeader;

// Collects what the server sends.
struct Post : runtime::Outbox {
  void enqueue(runtime::SendRequest request) override { requests.push_back(std::move(request)); }
  std::vector<runtime::SendRequest> requests;
};

// Rank 1 of three, which owns all of one tensor of 20,000 floats in one chunk of two pieces.
struct BspStoreTest : ::testing::Test {
  BspStoreTest() : chunks{{{0, 80'000, Rank{1}}}, {{0, 40, Rank{2}}}} {
    model.tensors = {{"w", {20'000}, DType::kFloat32}, {"elsewhere", {10}, DType::kFloat32}};
    model.layers = {{"l", {TensorId{0}, TensorId{1}}, 0}};
    store = std::make_unique<BspStore>(member, compute, post,
                                       BspStoreOptions{.self = Rank{1},
                                                       .members = {Member{10}, Member{11}, Member{12}},
                                                       .model = &model,
                                                       .layer_of = {0, 0},
                                                       .chunks = &chunks});
  }
  static PartHeader piece(std::uint64_t offset, std::uint32_t bytes, Iteration iteration = 0) {
    return {.type = FrameType::kPush, .tensor = TensorId{0}, .iteration = iteration, .offset = offset, .bytes = bytes, .contributors = 1, .samples = 4};
  }
  // A peer's whole push arrives.
  void push(Member from, float value, Iteration iteration = 0) {
    for (const auto& [offset, bytes] : {std::pair{0u, 65'536u}, {65'536u, 14'464u}}) {
      const PartHeader part = piece(offset, bytes, iteration);
      Result<runtime::Sink> sink = store->accept_push(from, part);
      ASSERT_TRUE(sink.ok()) << sink.error().message;
      std::vector<runtime::Slice> slices;
      sink->layout.slices(0, bytes, slices);
      const std::vector<float> values(bytes / 4, value);
      runtime::scatter(reinterpret_cast<const std::byte*>(values.data()), slices);
      sink->on_part(from, part);
    }
  }
  void push_local(float value, Iteration iteration = 0) {
    gradient.assign(20'000, value);
    store->push_local(TensorId{0}, 0, iteration,
                      {reinterpret_cast<std::byte*>(gradient.data()), true, 2, [this](const PieceSum& p) { pieces.push_back(p); }});
  }
  std::string refusal(Member from, const PartHeader& part) {
    const Result<runtime::Sink> sink = store->accept_push(from, part);
    return sink.ok() ? "accepted" : sink.error().message;
  }

  runtime::sim::SimWorld world{runtime::sim::SimOptions{}};
  runtime::sim::SimMember& member = world.add(Member{11});
  runtime::SimpleCompute compute;
  Post post;
  Model model;
  std::vector<std::vector<plan::Chunk>> chunks;
  std::unique_ptr<BspStore> store;
  std::vector<float> gradient;
  std::vector<PieceSum> pieces;
};

TEST_F(BspStoreTest, SumsInTheOrderOfRanksWhateverTheOrderOfArrival) {
  // 1e8 + 1 - 1e8 in float32 is 0 from left to right, and 1 when the large ones meet first.
  push(Member{12}, -1e8f);
  push(Member{10}, 1e8f);
  EXPECT_TRUE(post.requests.empty()) << "rank 1 itself is missing";
  push_local(1.0f);
  EXPECT_EQ(gradient, std::vector<float>(20'000, 0.0f));
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[1].begin, 65'536u);
  EXPECT_EQ(pieces[1].contributors, 3u);
  EXPECT_EQ(pieces[1].samples, 10u);
  ASSERT_EQ(post.requests.size(), 4u) << "two pieces to two others";
  EXPECT_EQ(post.requests[0].to, Member{12}) << "the successor first";
  EXPECT_EQ(post.requests[0].part.type, FrameType::kSum);
}

TEST_F(BspStoreTest, OfADedicatedServerWaitsForNoWorkerOfItsOwn) {
  chunks = {{{0, 80'000, Rank{4}}}, {{0, 40, Rank{2}}}};
  store = std::make_unique<BspStore>(member, compute, post,
                                     BspStoreOptions{.self = Rank{4},  // the second one of a job with three workers
                                                     .members = {Member{10}, Member{12}, Member{13}},
                                                     .model = &model,
                                                     .layer_of = {0, 0},
                                                     .chunks = &chunks});
  for (Iteration iteration = 0; iteration < 3; ++iteration) {
    post.requests.clear();
    push(Member{13}, 1.0f, iteration);
    push(Member{12}, -1e8f, iteration);
    EXPECT_TRUE(post.requests.empty());
    push(Member{10}, 1e8f, iteration);
    ASSERT_EQ(post.requests.size(), 6u) << "two pieces to three workers";
    EXPECT_EQ(post.requests[0].to, Member{13}) << "servers begin with different workers";
    EXPECT_EQ(post.requests[0].part.contributors, 3u);
    std::vector<runtime::Slice> slices;
    post.requests[0].source.slices(0, 65'536, slices);
    float first = 0;
    std::memcpy(&first, slices[0].region.data + slices[0].offset, sizeof first);
    EXPECT_EQ(first, 1.0f) << "1e8 - 1e8 + 1, in the order of ranks";
  }
  EXPECT_THAT(refusal(Member{11}, piece(0, 65'536, 3)), HasSubstr("no worker of this epoch"));
  push(Member{10}, 1, 3);
  world.run_for(std::chrono::seconds(3));
  EXPECT_EQ(store->overdue(std::chrono::seconds(2), 5).at(0),
            "the server shard of server 1 waits for rank 1 and rank 2 to push w of iteration 3 since 3.0 s");
}

TEST_F(BspStoreTest, ReleasesItsStagingMemory) {
  for (Iteration i = 0; i < 5; ++i) {
    push(Member{10}, 1, i);
    push_local(1, i);
    push(Member{12}, 1, i);
  }
  EXPECT_EQ(store->staging_bytes_max(), 80'000u + 65'536u) << "one whole contribution, and a piece of the next";
}

TEST_F(BspStoreTest, RefusesWhatThePlanHasNoPlaceFor) {
  EXPECT_THAT(refusal(Member{99}, piece(0, 65'536)), HasSubstr("no worker of this epoch"));
  EXPECT_THAT(refusal(Member{10}, piece(80'000, 4)), HasSubstr("does not own that range"));
  EXPECT_THAT(refusal(Member{10}, piece(4, 65'536)), HasSubstr("not one of the chunk's pieces"));
  EXPECT_THAT(refusal(Member{10}, piece(0, 100)), HasSubstr("not one of the chunk's pieces"));
  PartHeader part = piece(0, 40);
  part.tensor = TensorId{1};
  EXPECT_THAT(refusal(Member{10}, part), HasSubstr("does not own that range"));
  part.tensor = TensorId{77};
  EXPECT_THAT(refusal(Member{10}, part), HasSubstr("does not own that range"));
  PartHeader absent = piece(65'536, 0);
  absent.flags = wire::kAbsent;
  EXPECT_THAT(refusal(Member{10}, absent), HasSubstr("must name the start of a chunk"));
}

TEST_F(BspStoreTest, RefusesWhatComesTwiceOrOutOfTurn) {
  push(Member{10}, 1, 4);
  EXPECT_THAT(refusal(Member{10}, piece(0, 65'536, 4)), HasSubstr("it came twice"));
  PartHeader absent = piece(0, 0, 4);
  absent.flags = wire::kAbsent;
  EXPECT_THAT(refusal(Member{10}, absent), HasSubstr("it came twice"));
  EXPECT_THAT(refusal(Member{10}, piece(0, 65'536, 6)), HasSubstr("its turn is over, or has not come")) << "4 is not summed yet";
  push(Member{12}, 1, 4);
  push_local(1, 4);
  EXPECT_THAT(refusal(Member{10}, piece(0, 65'536, 4)), HasSubstr("its turn is over"));
  EXPECT_THAT(refusal(Member{10}, piece(0, 65'536, 2)), HasSubstr("its turn is over"));
  EXPECT_EQ(refusal(Member{10}, piece(0, 65'536, 6)), "accepted");
}

// The same with a cap of one piece: closes at the first.
struct SmallBspStoreTest : BspStoreTest {
  SmallBspStoreTest() {
    model.tensors.push_back({"first", {100}, DType::kFloat32});
    model.layers = {{"l0", {TensorId{2}}, 0}, {"l1", {TensorId{0}, TensorId{1}}, 0}};
    chunks = {{{0, 80'000, Rank{1}}}, {{0, 40, Rank{2}}}, {{0, 400, Rank{1}}}};
    store = std::make_unique<BspStore>(
        member, compute, post,
        BspStoreOptions{.self = Rank{1},
                        .members = {Member{10}, Member{11}, Member{12}},
                        .model = &model,
                        .layer_of = {0, 0, 0},
                        .chunks = &chunks,
                        .staging_bytes_max = 65'536,
                        .tell = [this](const wire::GateNews& said) { news.push_back(said); }});
  }
  std::vector<wire::GateNews> news;
};

TEST_F(SmallBspStoreTest, AsksForTheFirstLayerWhenItsMemoryIsShortAndForAllAgainLater) {
  push(Member{10}, 1, 3);
  ASSERT_EQ(news.size(), 1u);
  EXPECT_EQ(news[0], (wire::GateNews{.closing = 1, .open = false, .admitted = {{TensorId{2}, 0, 3}, {TensorId{0}, 0, 3}}}))
      << "the first by the forward pass, though all priorities are equal, and the one that has been begun";
  push(Member{12}, 1, 3);
  EXPECT_EQ(news.size(), 1u) << "what was under way is taken";
  push_local(1, 3);
  ASSERT_EQ(news.size(), 2u);
  EXPECT_EQ(news[1], (wire::GateNews{.closing = 1, .open = true, .admitted = {}}));
  EXPECT_EQ(gradient, std::vector<float>(20'000, 3.0f));
}

TEST_F(SmallBspStoreTest, SaysThatItKeepsPushesWaitingAndWhatItNeeds) {
  push(Member{10}, 1, 3);
  world.run_for(std::chrono::seconds(3));
  ASSERT_EQ(store->overdue(std::chrono::seconds(2), 5).size(), 2u);
  EXPECT_EQ(store->overdue(std::chrono::seconds(2), 5)[0],
            "the server shard of rank 1 has staged 78.1 KiB, near its cap of 64.0 KiB, and keeps pushes waiting; first of all it "
            "needs first of iteration 3 from all ranks, since 3.0 s");
  PartHeader absent{.type = FrameType::kPush, .flags = wire::kAbsent, .tensor = TensorId{2}, .iteration = 3};
  store->accept_push(Member{12}, absent)->on_part(Member{12}, absent);
  EXPECT_THAT(store->overdue(std::chrono::seconds(2), 5)[0], HasSubstr("first of iteration 3 from rank 0 and rank 1, since"));
}

TEST_F(BspStoreTest, RefusesTheNextIterationBeforeTheSumOfThisOne) {
  push(Member{10}, 1, 4);
  EXPECT_THAT(refusal(Member{10}, piece(0, 65'536, 5)), HasSubstr("its turn is over, or has not come"));
}

TEST_F(BspStoreTest, NamesWhomItWaitsFor) {
  push(Member{10}, 1, 7);
  world.run_for(std::chrono::seconds(3));
  const std::vector<std::string> sentences = store->overdue(std::chrono::seconds(2), 5);
  ASSERT_EQ(sentences.size(), 1u);
  EXPECT_EQ(sentences[0], "the server shard of rank 1 waits for rank 1 and rank 2 to push w of iteration 7 since 3.0 s");
  EXPECT_TRUE(store->overdue(std::chrono::seconds(4), 5).empty());
}

}  // namespace
}  // namespace poseidon::store
