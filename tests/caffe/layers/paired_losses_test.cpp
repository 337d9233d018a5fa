// ContrastiveLoss, EuclideanLoss and SigmoidCrossEntropyLoss.
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string pair_text(std::string_view type, std::string_view settings = "") {
  return base::concat("name: 'l' type: '", type, "' bottom: 'x' bottom: 'y' top: 'loss' ", settings);
}

std::string contrastive_text(std::string_view settings = "") {
  return base::concat("name: 'l' type: 'ContrastiveLoss' bottom: 'a' bottom: 'b' bottom: 'alike' top: 'loss' ",
                      settings);
}

double loss_of(std::string_view text, const std::vector<at::Tensor>& bottoms) {
  std::vector<Shape> shapes;
  for (const at::Tensor& bottom : bottoms) shapes.push_back(bottom.sizes().vec());
  const Made made = make_layer(text, shapes);
  EXPECT_EQ(made.tops, std::vector<Shape>{{}});
  EXPECT_TRUE(made.layer->is_loss());
  return values_of(made.layer->forward({}, bottoms)[0])[0];
}

TEST(EuclideanLoss, IsHalfTheMeanSquaredDistance) {
  // (1 + 4 + 9 + 16) / 2 records / 2.
  EXPECT_DOUBLE_EQ(
      loss_of(pair_text("EuclideanLoss"), {tensor_of({1, 2, 3, 4}, {2, 2}), tensor_of({2, 4, 6, 0}, {2, 2})}), 7.5);
  EXPECT_DOUBLE_EQ(loss_of(pair_text("EuclideanLoss"), {tensor_of({1, 2}, {2}), tensor_of({2, 4}, {2, 1, 1, 1})}), 1.25)
      << "shapes may differ";
}

TEST(EuclideanLoss, HasTheGradientsOfFiniteDifferencesByBothBottoms) {
  std::mt19937_64 random(1);
  Made made = make_layer(pair_text("EuclideanLoss"), {{3, 2, 2}, {3, 4}});
  expect_gradients(*made.layer, {random_tensor({3, 2, 2}, random), random_tensor({3, 4}, random)}, {0, 1});
}

TEST(EuclideanLoss, WantsBottomsOfOneSize) {
  EXPECT_EQ(setup_error(pair_text("EuclideanLoss"), {{2, 6}, {3, 4}}),
            "net.prototxt:1:1: layer \"l\" (EuclideanLoss) wants two blobs with as many records and as many elements: "
            "\"x\" is [2, 6], \"y\" is [3, 4]");
  EXPECT_NE(setup_error(pair_text("EuclideanLoss"), {{2, 6}, {2, 4}}), "(no error)");
  EXPECT_NE(setup_error(pair_text("EuclideanLoss"), {{}, {}}), "(no error)");
}

// Four pairs at the distances 5 (3-4-5), 0.5, 0.5 and 2, of which the first two are alike.
std::vector<at::Tensor> pairs() {
  return {tensor_of({3, 4, 0.3, 0.4, 1, 1, 0, 2}, {4, 2}), tensor_of({0, 0, 0, 0, 0.7, 0.6, 0, 0}, {4, 2}),
          tensor_of({1, -2, 0, 0.9}, {4})};
}

TEST(ContrastiveLoss, CountsDistanceWithinAndWhatTheMarginLacksWithout) {
  // Alike: 25 and 0.25. Unlike: (1 - 0.5)² and nothing, or 1 - 0.25 and nothing. Over 4 pairs, halved.
  EXPECT_NEAR(loss_of(contrastive_text(), pairs()), (25 + 0.25 + 0.25) / 8, 1e-12);
  EXPECT_NEAR(loss_of(contrastive_text("contrastive_loss_param { legacy_version: true }"), pairs()),
              (25 + 0.25 + 0.75) / 8, 1e-12);
  // With a margin of 3: 2.5² and 1, or 3 - 0.25 and nothing.
  EXPECT_NEAR(loss_of(contrastive_text("contrastive_loss_param { margin: 3 }"), pairs()), (25.25 + 6.25 + 1) / 8,
              1e-12);
  EXPECT_NEAR(loss_of(contrastive_text("contrastive_loss_param { margin: 3 legacy_version: true }"), pairs()),
              (25.25 + 2.75) / 8, 1e-12);
}

TEST(ContrastiveLoss, HasTheGradientsOfFiniteDifferencesInItsLegacyVersion) {
  Made made =
      make_layer(contrastive_text("contrastive_loss_param { margin: 3 legacy_version: true }"), {{4, 2}, {4, 2}, {4}});
  expect_gradients(*made.layer, pairs(), {0, 1});
}

TEST(ContrastiveLoss, HasCaffesGradient) {
  // By a: (a - b) / N for alike pairs, and -(margin - d) / (d + 1e-4) (a - b) / N for unlike ones within the margin.
  Made made = make_layer(contrastive_text("contrastive_loss_param { margin: 1.5 }"), {{4, 2}, {4, 2}, {4}});
  std::vector<at::Tensor> bottoms = pairs();
  bottoms[0].requires_grad_();
  bottoms[1].requires_grad_();
  made.layer->forward({}, bottoms)[0].backward();
  const double unlike = -(1.5 - 0.5) / (0.5 + 1e-4) / 4;
  const std::vector<double> wanted = {0.75, 1, 0.075, 0.1, 0.3 * unlike, 0.4 * unlike, 0, 0};
  expect_near(bottoms[0].grad(), wanted, 1e-12);
  expect_near(-bottoms[1].grad(), wanted, 1e-12);
}

TEST(ContrastiveLoss, HasNoGradientForUnlikePairsThatAreEqual) {
  Made made = make_layer(contrastive_text(), {{1, 2}, {1, 2}, {1}});
  const at::Tensor a = tensor_of({1, 2}, {1, 2}).requires_grad_();
  made.layer->forward({}, {a, tensor_of({1, 2}, {1, 2}), tensor_of({0}, {1})})[0].backward();
  expect_near(a.grad(), {0, 0}, 0);
}

TEST(ContrastiveLoss, WantsANumberForEachPair) {
  EXPECT_EQ(
      setup_error(contrastive_text(), {{4, 2}, {4, 2}, {4, 2}}),
      "net.prototxt:1:1: layer \"l\" (ContrastiveLoss) wants one number for each of 4 pairs, not 0 where they are "
      "alike; bottom \"alike\" is [4, 2]");
}

// Over all elements, in plain loops: the costs of those whose target is not `ignored`, and how many these are.
std::pair<double, double> costs(const std::vector<double>& x, const std::vector<double>& targets, double ignored) {
  double sum = 0;
  double count = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (targets[i] == ignored) continue;
    const double sigmoid = 1 / (1 + std::exp(-x[i]));
    sum -= targets[i] * std::log(sigmoid) + (1 - targets[i]) * std::log(1 - sigmoid);
    count += 1;
  }
  return {sum, count};
}

TEST(SigmoidCrossEntropyLoss, DividesByWhatItsNormalizationSays) {
  std::mt19937_64 random(2);
  const at::Tensor x = random_tensor({2, 4}, random);
  const std::vector<double> targets = {0, 1, -1, 0.25, -1, -1, 1, 0};
  const auto loss = [&](std::string_view settings) {
    return loss_of(pair_text("SigmoidCrossEntropyLoss", settings), {x, tensor_of(targets, {2, 4})});
  };
  const auto [all, eight] = costs(values_of(x), targets, 99);
  const auto [valid, five] = costs(values_of(x), targets, -1);
  EXPECT_NEAR(loss(""), all / 2, 1e-12);
  EXPECT_NEAR(loss("loss_param { normalization: VALID }"), all / 8, 1e-12);
  EXPECT_NEAR(loss("loss_param { normalize: true }"), all / 8, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 }"), valid / 2, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 normalization: VALID }"), valid / 5, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 normalize: true }"), valid / 5, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 normalize: false }"), valid / 2, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 normalization: FULL }"), valid / 8, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 normalization: BATCH_SIZE }"), valid / 2, 1e-12);
  EXPECT_NEAR(loss("loss_param { ignore_label: -1 normalization: NONE }"), valid, 1e-12);
  EXPECT_EQ(eight, 8);
  EXPECT_EQ(five, 5);
}

TEST(SigmoidCrossEntropyLoss, IgnoresByTheWholePartOfATarget) {
  // 0.75 has the whole part 0: only the second element counts.
  EXPECT_NEAR(loss_of(pair_text("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 0 normalization: VALID }"),
                      {tensor_of({5, 0}, {1, 2}), tensor_of({0.75, 1}, {1, 2})}),
              std::log(2), 1e-12);
}

TEST(SigmoidCrossEntropyLoss, IsFiniteWhereTheSigmoidIsNot) {
  EXPECT_DOUBLE_EQ(
      loss_of(pair_text("SigmoidCrossEntropyLoss"), {tensor_of({1000, -1000}, {1, 2}), tensor_of({0, 1}, {1, 2})}),
      2000);
}

TEST(SigmoidCrossEntropyLoss, IsZeroWhenEveryTargetIsIgnored) {
  EXPECT_EQ(loss_of(pair_text("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 7 normalization: VALID }"),
                    {tensor_of({1, 2}, {1, 2}), tensor_of({7, 7}, {1, 2})}),
            0);
}

TEST(SigmoidCrossEntropyLoss, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(3);
  for (const std::string_view settings :
       {"", "loss_param { ignore_label: -1 }", "loss_param { ignore_label: -1 normalization: VALID }",
        "loss_param { normalization: FULL }", "loss_param { normalization: NONE }"}) {
    SCOPED_TRACE(settings);
    Made made = make_layer(pair_text("SigmoidCrossEntropyLoss", settings), {{2, 3}, {2, 3}});
    expect_gradients(*made.layer, {random_tensor({2, 3}, random), tensor_of({1, 0, -1, 0.5, 1, -1}, {2, 3})}, {0});
  }
}

}  // namespace
}  // namespace poseidon::caffe
