// HingeLoss, InfogainLoss and MultinomialLogisticLoss.
#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/proto/blob_file.h"
#include "support/temporary_folder.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string loss_text(std::string_view type, std::string_view settings = "") {
  return base::concat("name: 'l' type: '", type, "' bottom: 'x' bottom: 'label' top: 'loss' ", settings);
}

double loss_of(std::string_view text, const std::vector<at::Tensor>& bottoms) {
  std::vector<Shape> shapes;
  for (const at::Tensor& bottom : bottoms) shapes.push_back(bottom.sizes().vec());
  const Made made = make_layer(text, shapes);
  EXPECT_EQ(made.tops[0], Shape{});
  EXPECT_TRUE(made.layer->is_loss());
  return values_of(made.layer->forward({}, bottoms)[0])[0];
}

TEST(HingeLoss, CountsWhatEveryScoreLacks) {
  // Record 0, class 1: 1 + 0.5, 1 - 2 (nothing), 1 - 3 (nothing). Record 1, class 2: 1 + 1, 1 + 0, 1 - 0.25.
  const std::vector<at::Tensor> bottoms = {tensor_of({0.5, 2, -3, 1, 0, 0.25}, {2, 3}), tensor_of({1, 2}, {2})};
  EXPECT_DOUBLE_EQ(loss_of(loss_text("HingeLoss"), bottoms), (1.5 + 2 + 1 + 0.75) / 2);
  EXPECT_DOUBLE_EQ(loss_of(loss_text("HingeLoss", "hinge_loss_param { norm: L1 }"), bottoms), (1.5 + 2 + 1 + 0.75) / 2);
  EXPECT_DOUBLE_EQ(loss_of(loss_text("HingeLoss", "hinge_loss_param { norm: L2 }"), bottoms),
                   (2.25 + 4 + 1 + 0.5625) / 2);
}

TEST(HingeLoss, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  for (const std::string_view norm : {"L1", "L2"}) {
    // Scores of at most 0.5, so that no sum is near the kink, and three times as large, so that some are behind it.
    for (const double scale : {1.0, 3.0}) {
      Made made = make_layer(loss_text("HingeLoss", base::concat("hinge_loss_param { norm: ", norm, " }")),
                             {{3, 2, 2}, {3, 1}});
      expect_gradients(*made.layer, {distinct_tensor({3, 2, 2}, random) * scale + 0.01, tensor_of({0, 3, 1}, {3, 1})},
                       {0});
    }
  }
}

TEST(HingeLoss, HasNoGradientAtTheKink) {
  Made made = make_layer(loss_text("HingeLoss"), {{1, 2}, {1}});
  const at::Tensor x = tensor_of({1, -1}, {1, 2}).requires_grad_();
  made.layer->forward({}, {x, tensor_of({0}, {1})})[0].backward();
  expect_near(x.grad(), {0, 0}, 0);
}

TEST(HingeLoss, NamesALabelThatIsNoClass) {
  Made made = make_layer(loss_text("HingeLoss"), {{2, 3}, {2}});
  std::mt19937_64 random(2);
  for (const double label : {3.0, -1.0}) {
    EXPECT_EQ(error_of([&] { made.layer->forward({}, {random_tensor({2, 3}, random), tensor_of({0, label}, {2})}); }),
              base::concat("net.prototxt:1:1: layer \"l\" (HingeLoss) met label ", label,
                           " in record 1 of a batch of \"label\", but \"x\" has 3 classes: labels go from 0 to 2"));
  }
  EXPECT_NE(setup_error(loss_text("HingeLoss"), {{2, 3}, {2, 3}}).find("wants one label for each of 2 positions"),
            std::string::npos);
}

TEST(MultinomialLogisticLoss, IsTheMeanLogarithmOfTheProbabilities) {
  EXPECT_NEAR(loss_of(loss_text("MultinomialLogisticLoss"),
                      {tensor_of({0.5, 0.25, 0.25, 0.1, 0.1, 0.8}, {2, 3, 1, 1}), tensor_of({1, 2}, {2, 1, 1, 1})}),
              -(std::log(0.25) + std::log(0.8)) / 2, 1e-12);
}

TEST(MultinomialLogisticLoss, IsFiniteForAProbabilityOfZero) {
  Made made = make_layer(loss_text("MultinomialLogisticLoss"), {{2, 2}, {2}});
  const at::Tensor x = tensor_of({0, 1, 0.5, 0.5}, {2, 2}).requires_grad_();
  const at::Tensor loss = made.layer->forward({}, {x, tensor_of({0, 1}, {2})})[0];
  expect_near(loss, {-(std::log(1e-20) + std::log(0.5)) / 2}, 1e-12);
  loss.backward();
  const std::vector<double> gradient = values_of(x.grad());
  EXPECT_DOUBLE_EQ(gradient[0], -1e20 / 2);
  EXPECT_EQ(gradient[1], 0);
  EXPECT_EQ(gradient[2], 0);
  EXPECT_DOUBLE_EQ(gradient[3], -1);
}

TEST(MultinomialLogisticLoss, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(3);
  Made made = make_layer(loss_text("MultinomialLogisticLoss"), {{4, 3}, {4}});
  expect_gradients(*made.layer, {distinct_tensor({4, 3}, random) + 0.6, tensor_of({0, 2, 1, 1}, {4})}, {0});
}

TEST(MultinomialLogisticLoss, NamesALabelThatIsNoClass) {
  Made made = make_layer(loss_text("MultinomialLogisticLoss"), {{2, 3}, {2}});
  std::mt19937_64 random(4);
  EXPECT_NE(error_of([&] {
              made.layer->forward({}, {random_tensor({2, 3}, random), tensor_of({0, 3}, {2})});
            }).find("met label 3 in record 1"),
            std::string::npos);
}

class InfogainLoss : public ::testing::Test {
 protected:
  // With the matrix in a file.
  std::string from_file(std::string_view settings = "", std::string_view infogain = "") const {
    return loss_text("InfogainLoss",
                     base::concat("infogain_loss_param { source: '", file_.string(), "' ", infogain, " } ", settings));
  }

  void SetUp() override { write(std::vector<float>(matrix_.begin(), matrix_.end())); }
  void write(std::vector<float> values) const {
    const auto side = static_cast<std::int64_t>(std::sqrt(values.size()));
    ASSERT_TRUE(proto::write_blob(file_, {{1, 1, side, side}, std::move(values)}).ok());
  }

  // -Σ_l H(label, l) log softmax_l of each position whose label is not `ignored`, over [outer, 3, inner].
  double sum(const std::vector<double>& x, const std::vector<double>& labels, std::size_t inner, double ignored) const {
    double total = 0;
    for (std::size_t position = 0; position < labels.size(); ++position) {
      if (labels[position] == ignored) continue;
      const std::size_t first = position / inner * 3 * inner + position % inner;
      double exponentials = 0;
      for (std::size_t c = 0; c < 3; ++c) exponentials += std::exp(x[first + c * inner]);
      for (std::size_t c = 0; c < 3; ++c) {
        const double log_probability = x[first + c * inner] - std::log(exponentials);
        total -= matrix_[static_cast<std::size_t>(labels[position]) * 3 + c] * log_probability;
      }
    }
    return total;
  }

  test::TemporaryFolder folder_;
  std::filesystem::path file_ = folder_ / "infogain.binaryproto";
  std::vector<double> matrix_ = {1, 0.5, 0, 0.25, 2, -0.5, 0, 0, 1.5};
};

TEST_F(InfogainLoss, WeighsTheLogarithmsWithTheRowOfTheLabel) {
  // Probabilities 1/8, 2/8, 5/8 and the label 1.
  const at::Tensor x = tensor_of({0, std::log(2), std::log(5)}, {1, 3});
  EXPECT_NEAR(loss_of(from_file(), {x, tensor_of({1}, {1})}),
              -(0.25 * std::log(0.125) + 2 * std::log(0.25) - 0.5 * std::log(0.625)), 1e-12);
}

TEST_F(InfogainLoss, TakesTheMatrixFromAThirdBottom) {
  std::mt19937_64 random(5);
  const at::Tensor x = random_tensor({4, 3}, random);
  const std::vector<double> labels = {0, 2, 1, 1};
  EXPECT_NEAR(loss_of("name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 'label' bottom: 'H' top: 'loss'",
                      {x, tensor_of(labels, {4}), tensor_of(matrix_, {3, 3})}),
              sum(values_of(x), labels, 1, 99) / 4, 1e-12);
}

TEST_F(InfogainLoss, DividesByWhatItsNormalizationSaysAlongItsAxis) {
  std::mt19937_64 random(6);
  const at::Tensor x = random_tensor({2, 3, 4}, random);
  const std::vector<double> labels = {0, 255, 2, 1, 255, 255, 1, 0};
  const double valid = sum(values_of(x), labels, 4, 255);
  const auto loss = [&](std::string_view settings, std::string_view infogain = "") {
    return loss_of(from_file(base::concat("loss_param { ignore_label: 255 ", settings, " }"), infogain),
                   {x, tensor_of(labels, {2, 4})});
  };
  EXPECT_NEAR(loss(""), valid / 5, 1e-12);
  EXPECT_NEAR(loss("", "axis: -2"), valid / 5, 1e-12);
  EXPECT_NEAR(loss("normalization: FULL"), valid / 8, 1e-12);
  EXPECT_NEAR(loss("normalization: BATCH_SIZE"), valid / 2, 1e-12);
  EXPECT_NEAR(loss("normalization: NONE"), valid, 1e-12);
}

TEST_F(InfogainLoss, TakesNoProbabilityForLessThanItsFloor) {
  // The label's log probability is -100, and is taken for log(1e-20); the other's is almost zero.
  EXPECT_NEAR(loss_of("name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 'label' bottom: 'H' top: 'loss'",
                      {tensor_of({0, 100}, {1, 2}), tensor_of({0}, {1}), tensor_of({1, 0, 0, 1}, {2, 2})}),
              -std::log(1e-20), 1e-12);
}

TEST_F(InfogainLoss, YieldsTheProbabilitiesAsSecondTop) {
  Made made = make_layer(base::concat(from_file(), " top: 'probability'"), {{1, 3}, {1}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{}, {1, 3}}));
  expect_near(made.layer->forward({}, {tensor_of({0, std::log(2), std::log(5)}, {1, 3}), tensor_of({1}, {1})})[1],
              {0.125, 0.25, 0.625}, 1e-12);
}

TEST_F(InfogainLoss, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(7);
  for (const std::string_view settings :
       {"", "loss_param { ignore_label: 1 }", "loss_param { ignore_label: 1 normalization: FULL }",
        "loss_param { normalization: BATCH_SIZE }", "loss_param { normalization: NONE }"}) {
    SCOPED_TRACE(settings);
    Made made = make_layer(from_file(settings), {{2, 3, 2}, {2, 2}});
    expect_gradients(*made.layer, {random_tensor({2, 3, 2}, random), tensor_of({0, 1, 2, 1}, {2, 2})}, {0});
  }
}

TEST_F(InfogainLoss, ExplainsWhatIsWrongWithItsMatrix) {
  EXPECT_EQ(setup_error(loss_text("InfogainLoss"), {{1, 3}, {1}}),
            "net.prototxt:1:1: layer \"l\" (InfogainLoss) needs its matrix: infogain_loss_param { source: "
            "\"FILE.binaryproto\" }, or a third bottom");
  EXPECT_NE(setup_error(from_file(), {{1, 4}, {1}}).find("has a matrix of 9 numbers; 4 classes need 4 x 4"),
            std::string::npos);
  const std::string missing =
      setup_error(loss_text("InfogainLoss", "infogain_loss_param { source: '/nowhere/h.binaryproto' }"), {{1, 3}, {1}});
  EXPECT_NE(missing.find("has no usable matrix: cannot read /nowhere/h.binaryproto"), std::string::npos) << missing;
}

TEST_F(InfogainLoss, NamesALabelThatIsNoClass) {
  std::mt19937_64 random(8);
  Made made = make_layer(from_file("loss_param { ignore_label: -1 }"), {{2, 3, 2}, {2, 2}});
  EXPECT_NE(error_of([&] {
              made.layer->forward({}, {random_tensor({2, 3, 2}, random), tensor_of({0, -1, 0, 7}, {2, 2})});
            }).find("met label 7 in record 1"),
            std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe
