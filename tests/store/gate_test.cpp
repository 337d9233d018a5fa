// When the gate closes and opens, and whom it admits: worked by hand. Whole jobs under a cap are in session/gate_swarm_test.cpp.
#include "store/gate.h"

#include <gtest/gtest.h>

#include <utility>

namespace poseidon::store {
namespace {

using wire::ChunkName;
using wire::GateNews;

constexpr ChunkName name(std::uint32_t tensor, std::uint64_t offset, Iteration iteration) { return {TensorId{tensor}, offset, iteration}; }

struct GateTest : ::testing::Test {
  // Four chunks in three layers. With a cap of 1000 and 200 that cross: room for 800, closes above 400, opens at 200.
  void start(std::size_t cap, std::size_t crossing) {
    gate = std::make_unique<Gate>(GateOptions{.staging_bytes_max = cap, .crossing_bytes_max = crossing, .others = 2},
                                  std::vector<GateChunk>{{TensorId{0}, 0, 100, 0},
                                                         {TensorId{1}, 0, 100, 1},
                                                         {TensorId{1}, 100, 100, 1},
                                                         {TensorId{2}, 0, 300, 2}},
                                  [this](const GateNews& said) { news.push_back(said); });
  }
  std::vector<GateNews> take() { return std::exchange(news, {}); }

  std::unique_ptr<Gate> gate;
  std::vector<GateNews> news;
};

using News = std::vector<GateNews>;

TEST_F(GateTest, SaysNothingWhileLittleIsStaged) {
  start(1'000, 200);
  for (int iteration = 0; iteration < 3; ++iteration) {
    gate->opened(0, static_cast<Iteration>(iteration));
    gate->staged(0, 100);
    gate->staged(0, 100);
    gate->staged(2, 100);
    gate->staged(2, 100);
    gate->summed(0, 200, true);
    gate->summed(2, 200, true);
  }
  EXPECT_TRUE(gate->is_open());
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(gate->bytes_staged(), 0u);
}

TEST_F(GateTest, AdmitsTheLowestAndWhatIsBegunAsFarAsThereIsRoom) {
  start(1'000, 200);
  gate->opened(3, 5);
  gate->staged(3, 300);
  gate->staged(2, 100);
  EXPECT_TRUE(gate->is_open()) << "400 are staged, not more";
  gate->staged(2, 100);
  // 500 staged and 200 for the lowest. Chunk 2 has everything, so nobody need hear of it; chunk 3 would bring 300, and make it 1000.
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(0, 0, 5)}}}));
  gate->summed(2, 200, true);
  // 300 staged, 200 expected: now there is room for chunk 3, 800 in all.
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(2, 0, 5)}}}));
  gate->staged(3, 300);
  EXPECT_TRUE(take().empty());
  gate->summed(3, 400, false);
  // 200 are left.
  EXPECT_EQ(take(), (News{{.closing = 1, .open = true, .admitted = {}}}));
}

TEST_F(GateTest, SaysThatItClosesAlsoWhereNothingIsToComeOfWhatItAdmits) {
  start(600, 0);
  gate->opened(0, 0);
  gate->staged(0, 100);
  gate->staged(0, 100);
  gate->staged(3, 300);
  // 500 of 600 are staged. The lowest has all of the others' contributions, and chunk 3 would bring 300 more.
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {}}}));
  gate->summed(0, 200, true);
  // 300 are staged: chunk 1 is the lowest now, and would bring 200. Nobody has begun with it, so chunk 3 is admitted as well.
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(1, 0, 0), name(2, 0, 0)}}}));
}

TEST_F(GateTest, AdmitsTheLowestWhateverIsStagedAndThenTheNext) {
  start(0, 0);
  gate->opened(3, 0);
  gate->staged(3, 300);
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(0, 0, 0), name(2, 0, 0)}}}));
  gate->staged(0, 100);
  gate->staged(0, 100);
  EXPECT_TRUE(take().empty());
  gate->summed(0, 200, true);
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(1, 0, 0)}}}));
  gate->absent(1);
  gate->absent(1);
  gate->summed(1, 0, true);
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(1, 100, 0)}}}));
  gate->summed(2, 0, true);
  EXPECT_TRUE(take().empty()) << "chunk 3 comes before the next iteration of chunk 0, and is admitted";
  gate->staged(3, 300);
  gate->summed(3, 600, true);
  EXPECT_EQ(take(), (News{{.closing = 1, .open = true, .admitted = {}}}));
  gate->staged(1, 100);
  EXPECT_EQ(take(), (News{{.closing = 2, .open = false, .admitted = {name(0, 0, 1), name(1, 0, 1)}}}));
}

// Chunk 0 is never begun: its tensor is handed in only after the others have gone through iterations.
TEST_F(GateTest, AlwaysAdmitsOneOfWhatIsBegun) {
  start(0, 0);
  for (Iteration iteration = 0; iteration < 3; ++iteration) {
    gate->opened(1, iteration);
    gate->opened(3, iteration);
    gate->staged(3, 300);
    gate->staged(1, 100);
    const News said = take();
    ASSERT_EQ(said.size(), 1u);
    EXPECT_EQ(said[0].admitted, (std::vector<ChunkName>{name(0, 0, 0), name(2, 0, iteration)})) << "chunk 1 is the second of its kind";
    gate->staged(3, 300);
    gate->summed(3, 600, true);
    EXPECT_EQ(take(), (News{{.closing = iteration + 1, .open = false, .admitted = {name(1, 0, iteration)}}}));
    gate->staged(1, 100);
    gate->summed(1, 200, true);
    EXPECT_EQ(take(), (News{{.closing = iteration + 1, .open = true, .admitted = {}}}));
  }
}

TEST_F(GateTest, AdmitsMoreOfTheLowestLayerOnceAllThatIsBegunIs) {
  start(1'200, 200);  // room for 1000, closes above 500
  gate->opened(0, 0);
  gate->summed(0, 0, true);
  gate->staged(3, 300);
  gate->staged(3, 300);
  // 600 staged, nothing of chunk 3 is missing, 200 for chunk 1 and as many for chunk 2 of the same layer.
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(1, 0, 0), name(1, 100, 0)}}}));
}

TEST_F(GateTest, SaysAgainWhichIterationItMeantWhenItGuessedWrong) {
  start(0, 0);
  gate->opened(3, 10);
  gate->staged(3, 300);
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(0, 0, 10), name(2, 0, 10)}}}));
  gate->opened(0, 12);
  EXPECT_EQ(take(), (News{{.closing = 1, .open = false, .admitted = {name(0, 0, 12)}}}));
  gate->opened(1, 12);
  EXPECT_TRUE(take().empty()) << "not admitted";
}

TEST_F(GateTest, KeepsHalfTheCapWhereMuchCrosses) {
  start(1'000, 100'000);  // room for 500, closes above 250
  gate->opened(0, 0);
  gate->staged(0, 100);
  gate->staged(0, 100);
  EXPECT_TRUE(gate->is_open());
  gate->staged(1, 100);
  EXPECT_FALSE(gate->is_open());
}

TEST_F(GateTest, NamesAsManyChunksInOneFrameAsItHolds) {
  std::vector<GateChunk> chunks;
  for (std::uint32_t tensor = 0; tensor < 4'000; ++tensor) chunks.push_back({TensorId{tensor}, 0, 1, 0});
  chunks.push_back({TensorId{4'000}, 0, 6'000, 1});
  Gate large({.staging_bytes_max = 10'000, .crossing_bytes_max = 0, .others = 1}, chunks,
             [this](const GateNews& said) { news.push_back(said); });
  large.opened(4'000, 0);
  large.staged(4'000, 6'000);
  const News said = take();
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(said[0].admitted.size(), wire::kAdmittedMax);
  EXPECT_EQ(said[0].admitted.size() + said[1].admitted.size(), 4'000u);
}

}  // namespace
}  // namespace poseidon::store
