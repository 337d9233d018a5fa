// The least time of an iteration, against numbers worked by hand and by an independent program (bench/cluster/bound.py, which
// shares no code with this one).
#include "plan/bound.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/text.h"

namespace poseidon::plan {
namespace {

ModelDescription model(const std::string& name) {
  std::ifstream file(base::concat(POSEIDON_SOURCE_FOLDER, "/examples/models/", name, ".json"));
  std::stringstream text;
  text << file.rdbuf();
  return parse_model_description(text.str()).value();
}

TEST(Bound, OfTwoLayersByHand) {
  // Layer 0: 1 s forward, 2 back, 4 on the link; layer 1: 3, 5 and 6.
  const std::vector<LayerTimes> layers = {{1, 2, 4, 0}, {3, 5, 6, 0}};
  // Computing: 11. Layer 0 travels after all is computed: 11 + 4. Layer 1 may travel after its own 8, with layer 0: 8 + 10.
  EXPECT_DOUBLE_EQ(bound(layers), 18);
  // All must have come before the forward pass: 4 of forward, then 7 + 4 or 5 + 10.
  EXPECT_DOUBLE_EQ(bound_within_backward(layers), 4 + 15);
  EXPECT_DOUBLE_EQ(bound_without_overlap(layers), 21);
}

TEST(Bound, OfANarrowWireIsThatOfALinkTwiceAsFast) {
  const ModelDescription description = model("vgg19");
  BoundQuestion question{
      .description = &description, .batch = 32, .samples_per_second = 35.5, .workers = 8, .link_bytes_per_second = 1.25e8};
  for (const std::optional<Scheme> scheme : {std::optional<Scheme>(), std::optional(Scheme::kPs), std::optional(Scheme::kSfb)}) {
    question.scheme = scheme;
    question.wire = DType::kFloat16;
    const BoundAnswer narrow = least_time(question);
    question.wire = DType::kFloat32;
    const BoundAnswer wide = least_time(question);
    question.link_bytes_per_second *= 2;
    EXPECT_DOUBLE_EQ(narrow.seconds, least_time(question).seconds);
    EXPECT_LT(narrow.seconds, wide.seconds);
    question.link_bytes_per_second /= 2;
  }
}

TEST(Bound, IsComputingWhereTheLinkIsFast) {
  const std::vector<LayerTimes> layers = {{1, 2, 0.1, 0}, {3, 5, 0.1, 0.5}};
  EXPECT_DOUBLE_EQ(bound(layers), 11.5);  // the reconstruction is computing as well
}

struct Case {
  const char* model;
  double samples_per_second;
  int batch;
  int workers;
  double gbit;
  double seconds;        // least over the schemes
  double dense_seconds;
};

class BoundOfModel : public ::testing::TestWithParam<Case> {};

TEST_P(BoundOfModel, AgreesWithTheIndependentProgram) {
  const Case& c = GetParam();
  const ModelDescription description = model(c.model);
  BoundQuestion question{.description = &description,
                         .batch = c.batch,
                         .samples_per_second = c.samples_per_second,
                         .workers = c.workers,
                         .link_bytes_per_second = c.gbit * 1e9 / 8 * 1448 / 1514};
  // Its figures are printed to four places, and pass over the biases of block layers.
  EXPECT_NEAR(least_time(question).seconds, c.seconds, 1.5e-4);
  question.scheme = Scheme::kPs;
  EXPECT_NEAR(least_time(question).seconds, c.dense_seconds, 1.5e-4);
}

INSTANTIATE_TEST_SUITE_P(Published, BoundOfModel,
                         ::testing::Values(Case{"vgg19-22k", 34.6, 32, 8, 10, 0.9249, 1.3454},
                                           Case{"vgg19-22k", 34.6, 32, 32, 10, 0.9249, 1.4891},
                                           Case{"alexnet", 1421, 128, 8, 10, 0.1066, 0.3575},
                                           Case{"bert-base", 12, 32, 8, 10, 2.8096, 2.8096}),
                         [](const auto& test) {
                           std::string name = test.param.model;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + "_" + std::to_string(test.param.workers);
                         });

TEST(DenseCost, IsWhatTheBusiestLinkCarries) {
  // Four workers and two servers: 6/20 of the bytes at each server, which four workers push to; 1 + 2 · 2/20 through a worker's.
  EXPECT_NEAR(dense_cost(100, 4, {2, true}).bytes, 4 * 100 * 1.2, 1e-9);
  EXPECT_NEAR(dense_cost(100, 4, {2, false}).bytes, 4 * 100 * 2.0, 1e-9) << "half of the bytes, from four workers";
  EXPECT_NEAR(dense_cost(100, 4, {9, true}).bytes, 4 * 100 * 1.0, 1e-9);
  EXPECT_NEAR(dense_cost(100, 4).bytes, 4 * 100 * 1.5, 1e-9);
  EXPECT_NEAR(dense_cost(100, 1, {2, true}).bytes, 0, 1e-9);
}

TEST(Bound, WithServersOnSpareMachinesIsLower) {
  const ModelDescription description = model("alexnet");
  BoundQuestion question{.description = &description, .batch = 128, .samples_per_second = 1421, .workers = 8, .scheme = Scheme::kPs};
  const double colocated = least_time(question).seconds;
  question.serving = {8, true};
  const BoundAnswer helped = least_time(question);
  EXPECT_LT(helped.seconds, colocated);
  // Each worker's link carries every byte once instead of 2 · 7/8 times.
  double link = 0;
  for (const LayerTimes& layer : helped.layers) link += layer.link;
  EXPECT_NEAR(link, 4 * static_cast<double>(description.parameters()) / 1.25e9, 1e-9);
}

TEST(SchemeCosts, AreTheFormulasForOneNode) {
  // M 6, N 4, K 2, four workers with a bias of 6: numbers times 4 bytes.
  const std::vector<SchemeCost> costs = scheme_costs({.rows = 6, .cols = 4, .batch = 2, .bias = true}, 4);
  ASSERT_EQ(costs.size(), 3u);
  EXPECT_DOUBLE_EQ(costs[0].bytes, 4 * 2 * 3 / 4.0 * 30);
  EXPECT_DOUBLE_EQ(costs[1].bytes, 4 * 3 * 2 * 10.0);
  EXPECT_DOUBLE_EQ(costs[1].flops, 3 * 2 * 2 * 6 * 4.0);
  EXPECT_DOUBLE_EQ(costs[2].bytes, 4 * 3 * (2 * (6 / 2.0 + 4 / 2.0) + 30 / 4.0));
  EXPECT_DOUBLE_EQ(costs[2].flops, 0);
}

}  // namespace
}  // namespace poseidon::plan
