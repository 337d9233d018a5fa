#include "plan/lanes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace poseidon::plan {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

Model dense_model(const std::vector<std::int64_t>& elements) {
  Model model;
  for (std::size_t l = 0; l < elements.size(); ++l) {
    model.tensors.push_back({"t" + std::to_string(l), {elements[l]}, DType::kFloat32});
    model.layers.push_back({"l" + std::to_string(l), {TensorId{static_cast<std::uint32_t>(l)}}, 0});
  }
  return model;
}

Plan all_ps(const Model& model, int workers) {
  Plan plan{workers, {}};
  for (const LayerSpec& layer : model.layers) plan.layers.push_back({layer.name, Scheme::kPs, {}, Rank{0}});
  return plan;
}

// Bytes that live on each lane, by server.
std::vector<std::vector<std::size_t>> bytes_by_server(const LaneDeal& deal, int servers) {
  std::vector<std::vector<std::size_t>> bytes(static_cast<std::size_t>(servers), std::vector<std::size_t>(deal.lanes(), 0));
  for (std::size_t lane = 0; lane < deal.lanes(); ++lane) {
    for (const auto& tensor : deal.chunks_of(lane)) {
      for (const Chunk& chunk : tensor) bytes[static_cast<std::size_t>(index(chunk.server))][lane] += chunk.end - chunk.begin;
    }
  }
  return bytes;
}

TEST(LaneDeal, EveryChunkLivesOnExactlyOneLane) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::int64_t> elements;
    for (std::uint64_t i = 1 + random() % 12; i > 0; --i) elements.push_back(static_cast<std::int64_t>(random() % (std::uint64_t{1} << (random() % 23))));
    const Model model = dense_model(elements);
    const int workers = 1 + static_cast<int>(random() % 9);
    const Plan plan = all_ps(model, workers);
    const LaneDeal deal(model, plan, {.lanes = 1 + random() % kLanesMax, .whole_bytes_max = random() % 2 * kMiB});
    const auto all = partition(model, plan);
    for (std::size_t t = 0; t < all.size(); ++t) {
      const TensorId tensor{static_cast<std::uint32_t>(t)};
      std::vector<Chunk> found;
      for (std::size_t lane = 0; lane < deal.lanes(); ++lane) {
        const std::vector<Chunk> mine = deal.chunks_of(lane)[t];
        EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end(), [](const Chunk& a, const Chunk& b) { return a.begin < b.begin; }));
        EXPECT_TRUE(mine.empty() || deal.lives_on(tensor, lane));
        EXPECT_TRUE(!mine.empty() || all[t].empty() || !deal.lives_on(tensor, lane));
        found.insert(found.end(), mine.begin(), mine.end());
      }
      std::sort(found.begin(), found.end(), [](const Chunk& a, const Chunk& b) { return a.begin < b.begin; });
      ASSERT_EQ(found.size(), all[t].size());
      for (std::size_t c = 0; c < found.size(); ++c) {
        EXPECT_EQ(found[c].begin, all[t][c].begin);
        EXPECT_EQ(found[c].end, all[t][c].end);
        EXPECT_EQ(found[c].server, all[t][c].server);
      }
      ASSERT_FALSE(deal.lanes_of(tensor).empty()) << "also a tensor without bytes lives somewhere";
    }
  }
}

TEST(LaneDeal, ALargeTensorLiesOnAllLanesOfEachServerAlike) {
  // 64 MiB over 2 servers are 64 chunks of 1 MiB, 32 for each: 16 on each of two lanes.
  const Model model = dense_model({16 << 20});
  const LaneDeal deal(model, all_ps(model, 2), {.lanes = 2});
  EXPECT_EQ(bytes_by_server(deal, 2), (std::vector<std::vector<std::size_t>>{{16 * kMiB, 16 * kMiB}, {16 * kMiB, 16 * kMiB}}));
}

TEST(LaneDeal, ASmallTensorLivesWholeOnTheLaneThatHasLeast) {
  // 256 KiB each, cut in two chunks of 128 KiB, one for each server: the tensors take turns, their chunks do not.
  const Model model = dense_model({65'536, 65'536, 65'536, 65'536});
  const LaneDeal deal(model, all_ps(model, 2), {.lanes = 2});
  for (std::uint32_t t = 0; t < 4; ++t) EXPECT_EQ(deal.lanes_of(TensorId{t}), (std::vector<std::size_t>{t % 2})) << t;
  const LaneDeal cut(model, all_ps(model, 2), {.lanes = 2, .whole_bytes_max = 0});
  EXPECT_EQ(cut.lanes_of(TensorId{0}), (std::vector<std::size_t>{0, 1}));
}

TEST(LaneDeal, OfAServersBytesNoLaneHasMuchMoreThanItsShare) {
  // Convolutions that grow, a large matrix, and small things between.
  std::vector<std::int64_t> elements;
  for (std::int64_t width = 64; width <= 2048; width *= 2) {
    for (int i = 0; i < 6; ++i) elements.insert(elements.end(), {width * width, width, width});
  }
  elements.push_back(25 << 20);
  const Model model = dense_model(elements);
  for (const int workers : {2, 3, 4, 8}) {
    for (const std::size_t lanes : {2, 3, 4}) {
      const LaneDeal deal(model, all_ps(model, workers), {.lanes = lanes});
      for (const std::vector<std::size_t>& server : bytes_by_server(deal, workers)) {
        const auto [least, most] = std::minmax_element(server.begin(), server.end());
        EXPECT_LE(*most - *least, 3 * kMiB) << workers << " workers, " << lanes << " lanes";
      }
    }
  }
}

TEST(LaneDeal, AFactorLayerLivesOnOneLaneAndWeighsWhatItSends) {
  Model model = dense_model({1 << 20, 1 << 18});
  model.tensors.push_back({"fc.weight", {4096, 4096}, DType::kFloat32});
  model.tensors.push_back({"fc.bias", {4096}, DType::kFloat32});
  model.layers.insert(model.layers.begin(), LayerSpec{"fc", {TensorId{2}, TensorId{3}}, 32});
  Plan plan = all_ps(model, 2);
  plan.layers[0].scheme = Scheme::kSfb;
  const LaneDeal deal(model, plan, {.lanes = 2, .whole_bytes_max = 8 * kMiB});
  EXPECT_EQ(deal.lanes_of(TensorId{2}), (std::vector<std::size_t>{0}));
  EXPECT_EQ(deal.lanes_of(TensorId{3}), (std::vector<std::size_t>{0})) << "the bias goes with its weight";
  // 32 rows of 8,192 numbers are 1 MiB to the one other worker: what each server has of a dense tensor of 2 MiB. So the tensors
  // of 4 MiB and, after it, of 1 MiB go to the other lane and to this one.
  EXPECT_EQ(deal.lanes_of(TensorId{0}), (std::vector<std::size_t>{1}));
  EXPECT_EQ(deal.lanes_of(TensorId{1}), (std::vector<std::size_t>{0}));
  EXPECT_TRUE(deal.chunks_of(0)[2].empty());
}

}  // namespace
}  // namespace poseidon::plan
