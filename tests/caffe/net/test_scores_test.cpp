#include "engines/caffe/net/test_scores.h"

#include <stdexcept>

#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

// Yields the number of its first record, and ten more.
class Counter final : public Layer {
 public:
  explicit Counter(const LayerConfig& config) : Layer(config, {.bottoms_min = 0, .bottoms_max = 0}) {}
  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return {{2}}; }
  std::size_t records_per_batch() const override { return 3; }
  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>&) override {
    const auto record = static_cast<double>(context.first_record);
    return {tensor_of({record, record + 10}, {2})};
  }
};

Net counting_net() {
  LayerRegistry registry;
  registry.add("Counter", [](const LayerConfig& config) { return std::make_unique<Counter>(config); });
  return Net(net_message("layer { name: 'c' type: 'Counter' top: 'count' loss_weight: 0.5 }"), registry,
             {.state = {.phase = Phase::kTest}, .dtype = at::kDouble});
}

TEST(TestScores, HaveEveryElementOfEveryOutputAndTheLossOfEachBatch) {
  Net net = counting_net();
  const std::vector<BatchScores> scores = score_batches(net, {.first = 1, .stride = 2, .count = 5, .first_record = 30});
  ASSERT_EQ(scores.size(), 2u);
  EXPECT_EQ(scores[0].batch, 1u);
  EXPECT_EQ(scores[0].values, (std::vector<double>{33, 43, 38}));
  EXPECT_EQ(scores[1].batch, 3u);
  EXPECT_EQ(scores[1].values, (std::vector<double>{39, 49, 44}));
}

TEST(TestScores, AreAveragedInTheOrderOfTheBatchesWhoeverScoredThem) {
  Net net = counting_net();
  // In this order the sum of the first values is 1; in another it would be 0 or 2.
  const TestScores means = averaged(
      net,
      {{.batch = 2, .values = {1, 6, 0}}, {.batch = 0, .values = {1e17, 2, 1}}, {.batch = 1, .values = {-1e17, 1, 2}}},
      3);
  ASSERT_EQ(means.scores.size(), 2u);
  EXPECT_EQ(means.scores[0].name, "count");
  EXPECT_EQ(means.scores[0].value, 1.0 / 3);
  EXPECT_EQ(means.scores[0].loss_weight, 0.5);
  EXPECT_EQ(means.scores[1].value, 3);
  EXPECT_EQ(means.loss, 1);
}

TEST(TestScores, AreRefusedForAnOutputWhoseSizeDiffersFromBatchToBatch) {
  Net net(net_message("layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 3 } } }"
                      "layer { name: 'f' type: 'Filter' bottom: 'x' bottom: 'x' top: 'y' }"),
          standard_layers(), {.state = {.phase = Phase::kTest}, .dtype = at::kDouble});
  net.feed("x", tensor_of({5, 0, 7}, {3}));
  EXPECT_EQ(error_of([&] { score_batches(net, {.count = 1}); }),
            "net \"\" cannot be tested: its output \"y\" has 2 elements in one batch and may have 3 in another, so they "
            "have no means; add a layer that reduces it to one number, or a Silence layer that reads it");
}

TEST(TestScores, MustBeComplete) {
  Net net = counting_net();
  EXPECT_THROW(averaged(net, {}, 1), std::logic_error);
  EXPECT_THROW(averaged(net, {{.batch = 1, .values = {1, 2, 3}}}, 1), std::logic_error);
  EXPECT_THROW(averaged(net, {{.batch = 0, .values = {1, 2, 3}}, {.batch = 0, .values = {1, 2, 3}}}, 2),
               std::logic_error);
  EXPECT_THROW(averaged(net, {{.batch = 0, .values = {1, 2, 3}}, {.batch = 1, .values = {1, 2, 3}}}, 1),
               std::logic_error);
}

}  // namespace
}  // namespace poseidon::caffe
