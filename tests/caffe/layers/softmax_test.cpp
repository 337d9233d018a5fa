// Softmax and SoftmaxWithLoss.
#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string loss_text(std::string_view settings, std::string_view tops = "top: 'loss'") {
  return base::concat("name: 'loss' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 'label' ", tops, " ", settings);
}

// -log(softmax) of one position, in plain loops over [outer, classes, inner].
double position_loss(const std::vector<double>& x, std::size_t classes, std::size_t inner, std::size_t position,
                     std::size_t label) {
  const std::size_t base = position / inner * classes * inner + position % inner;
  double sum = 0;
  for (std::size_t c = 0; c < classes; ++c) sum += std::exp(x[base + c * inner]);
  return std::log(sum) - x[base + label * inner];
}

TEST(Softmax, IsTheShareOfTheExponentials) {
  // e^0 : e^ln2 : e^ln5 = 1 : 2 : 5.
  const at::Tensor x = tensor_of({0, std::log(2), std::log(5)}, {1, 3});
  expect_near(make_layer("name: 's' type: 'Softmax' bottom: 'x' top: 'y'", {{1, 3}}).layer->forward({}, {x})[0],
              {0.125, 0.25, 0.625}, 1e-12);
}

TEST(Softmax, GoesAlongItsAxis) {
  const at::Tensor x = tensor_of({0, 0, std::log(3), 0}, {1, 1, 2, 2});
  expect_near(make_layer("name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: 2 }", {{1, 1, 2, 2}})
                  .layer->forward({}, {x})[0],
              {0.25, 0.5, 0.75, 0.5}, 1e-12);
  EXPECT_NE(setup_error("name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: 2 }", {{1, 3}})
                .find("has axis 2"),
            std::string::npos);
}

TEST(Softmax, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  for (const std::string_view axis : {"1", "-1", "0"}) {
    Made made = make_layer(
        base::concat("name: 's' type: 'Softmax' bottom: 'x' top: 'y' softmax_param { axis: ", axis, " }"), {{3, 4, 2}});
    expect_gradients(*made.layer, {random_tensor({3, 4, 2}, random)}, {0});
  }
}

TEST(SoftmaxWithLoss, IsTheMeanLogLikelihoodWorkedByHand) {
  Made made = make_layer(loss_text(""), {{2, 3}, {2}});
  EXPECT_EQ(made.tops[0], Shape{});
  const at::Tensor x = tensor_of({0, std::log(2), std::log(5), 0, 0, std::log(2)}, {2, 3});
  // Probabilities 5/8 and 1/4.
  expect_near(made.layer->forward({}, {x, tensor_of({2, 1}, {2})})[0], {(std::log(1.6) + std::log(4)) / 2}, 1e-12);
}

TEST(SoftmaxWithLoss, TakesLabelsOfAnyShapeWithOneForEachPosition) {
  const at::Tensor x = tensor_of({0, 0, 0, std::log(3)}, {2, 2, 1, 1});
  for (const Shape& shape : {Shape{2}, Shape{2, 1}, Shape{2, 1, 1, 1}}) {
    Made made = make_layer(loss_text(""), {{2, 2, 1, 1}, shape});
    expect_near(made.layer->forward({}, {x, tensor_of({0, 1}, shape)})[0], {(std::log(2) + std::log(4.0 / 3)) / 2},
                1e-12);
  }
}

TEST(SoftmaxWithLoss, DividesByWhatItsNormalizationSays) {
  // [2, 3 classes, 4 positions]; three of the eight labels are ignored.
  std::mt19937_64 random(2);
  const at::Tensor x = random_tensor({2, 3, 4}, random);
  const std::vector<double> labels = {0, 255, 2, 1, 255, 255, 1, 0};
  double sum = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] != 255) sum += position_loss(values_of(x), 3, 4, i, static_cast<std::size_t>(labels[i]));
  }
  const auto loss = [&](std::string_view settings) {
    Made made =
        make_layer(loss_text(base::concat("loss_param { ignore_label: 255 ", settings, " }")), {{2, 3, 4}, {2, 4}});
    return values_of(made.layer->forward({}, {x, tensor_of(labels, {2, 4})})[0])[0];
  };
  EXPECT_NEAR(loss(""), sum / 5, 1e-12);
  EXPECT_NEAR(loss("normalization: VALID"), sum / 5, 1e-12);
  EXPECT_NEAR(loss("normalization: FULL"), sum / 8, 1e-12);
  EXPECT_NEAR(loss("normalization: BATCH_SIZE"), sum / 2, 1e-12);
  EXPECT_NEAR(loss("normalization: NONE"), sum, 1e-12);
  EXPECT_NEAR(loss("normalize: true"), sum / 5, 1e-12);
  EXPECT_NEAR(loss("normalize: false"), sum / 2, 1e-12);
  EXPECT_NEAR(loss("normalize: false normalization: FULL"), sum / 8, 1e-12);
}

TEST(SoftmaxWithLoss, IsZeroWhenEveryLabelIsIgnored) {
  std::mt19937_64 random(3);
  Made made = make_layer(loss_text("loss_param { ignore_label: -1 }"), {{2, 3}, {2}});
  expect_near(made.layer->forward({}, {random_tensor({2, 3}, random), tensor_of({-1, -1}, {2})})[0], {0}, 0);
}

TEST(SoftmaxWithLoss, YieldsTheProbabilitiesAsSecondTop) {
  Made made = make_layer(loss_text("softmax_param { axis: 0 }", "top: 'loss' top: 'probability'"), {{2, 2}, {2}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{}, {2, 2}}));
  const std::vector<at::Tensor> tops =
      made.layer->forward({}, {tensor_of({0, 0, std::log(3), 0}, {2, 2}), tensor_of({1, 0}, {2})});
  expect_near(tops[1], {0.25, 0.5, 0.75, 0.5}, 1e-12);
  expect_near(tops[0], {(std::log(4.0 / 3) + std::log(2)) / 2}, 1e-12);
}

TEST(SoftmaxWithLoss, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(4);
  for (const std::string_view settings :
       {"", "loss_param { ignore_label: 1 }", "loss_param { ignore_label: 1 normalization: FULL }",
        "loss_param { normalization: BATCH_SIZE }", "loss_param { normalization: NONE }", "softmax_param { axis: 2 }",
        "softmax_param { axis: -2 }"}) {
    SCOPED_TRACE(settings);
    Made made = make_layer(loss_text(settings), {{2, 3, 3}, {2, 3}});
    expect_gradients(*made.layer, {random_tensor({2, 3, 3}, random), tensor_of({0, 1, 2, 2, 1, 1}, {2, 3})}, {0});
  }
  Made flat = make_layer(loss_text(""), {{4, 3}, {4}});
  expect_gradients(*flat.layer, {random_tensor({4, 3}, random), tensor_of({0, 1, 2, 2}, {4})}, {0});
}

TEST(SoftmaxWithLoss, NamesALabelThatIsNoClass) {
  std::mt19937_64 random(5);
  Made made = make_layer(loss_text(""), {{2, 3}, {2}});
  const auto error = [&](double label) {
    return error_of([&] { made.layer->forward({}, {random_tensor({2, 3}, random), tensor_of({0, label}, {2})}); });
  };
  EXPECT_EQ(error(3),
            "net.prototxt:1:1: layer \"loss\" (SoftmaxWithLoss) met label 3 in record 1 of a batch of \"label\", "
            "but \"x\" has 3 classes: labels go from 0 to 2");
  EXPECT_NE(error(-1).find("met label -1"), std::string::npos);
  Made dense = make_layer(loss_text(""), {{2, 3, 2}, {2, 2}});
  EXPECT_NE(error_of([&] {
              dense.layer->forward({}, {random_tensor({2, 3, 2}, random), tensor_of({0, 0, 0, 7}, {2, 2})});
            }).find("met label 7 in record 1"),
            std::string::npos);
}

TEST(SoftmaxWithLoss, WantsOneLabelForEachPosition) {
  EXPECT_EQ(
      setup_error(loss_text(""), {{2, 3, 4}, {2}}),
      "net.prototxt:1:1: layer \"loss\" (SoftmaxWithLoss) wants one label for each of 8 positions: scores \"x\" are "
      "[2, 3, 4] with the classes on axis 1, labels \"label\" are [2]");
}

}  // namespace
}  // namespace poseidon::caffe
