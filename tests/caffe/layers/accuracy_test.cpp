#include <limits>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string text_of(std::string_view settings, std::string_view tops = "top: 'accuracy'") {
  return base::concat("name: 'a' type: 'Accuracy' bottom: 'x' bottom: 'label' ", tops, " accuracy_param { ", settings,
                      " }");
}

std::vector<double> accuracy(std::string_view settings, const at::Tensor& x, const at::Tensor& labels) {
  return values_of(
      make_layer(text_of(settings), {x.sizes().vec(), labels.sizes().vec()}).layer->forward({}, {x, labels})[0]);
}

// Best class 2, 0, 1, 1; second best 1, 2, 2, 0.
at::Tensor scores() {
  return tensor_of({0, 1, 2, 5, 0, 1, -1, 3, 2, 2, 4, 0}, {4, 3});
}

TEST(Accuracy, IsTheShareOfLabelsWithTheBestScore) {
  EXPECT_EQ(accuracy("", scores(), tensor_of({2, 0, 1, 0}, {4})), std::vector<double>{0.75});
}

TEST(Accuracy, CountsLabelsAmongTheBestFew) {
  EXPECT_EQ(accuracy("top_k: 2", scores(), tensor_of({1, 1, 2, 0}, {4})), std::vector<double>{0.75});
}

TEST(Accuracy, CountsATieAgainstTheLabel) {
  EXPECT_EQ(accuracy("", tensor_of({1, 1, 0, 2}, {2, 2}), tensor_of({0, 1}, {2})), std::vector<double>{0.5});
}

TEST(Accuracy, NeverFindsANotANumberRight) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(accuracy("", tensor_of({nan, 1, nan, nan}, {2, 2}), tensor_of({0, 1}, {2})), std::vector<double>{0});
}

TEST(Accuracy, LeavesIgnoredLabelsOut) {
  EXPECT_EQ(accuracy("ignore_label: 255", scores(), tensor_of({2, 255, 0, 255}, {4})), std::vector<double>{0.5});
  EXPECT_EQ(accuracy("ignore_label: -1", scores(), tensor_of({-1, -1, -1, -1}, {4})), std::vector<double>{0});
}

TEST(Accuracy, LooksForClassesAlongItsAxis) {
  // [1, 2 rows, 2 classes]: best classes 1 and 0.
  EXPECT_EQ(accuracy("axis: 2", tensor_of({0, 1, 3, 2}, {1, 2, 2}), tensor_of({1, 1}, {1, 2})),
            std::vector<double>{0.5});
  // [1, 2 classes, 2 positions]: best classes 1 and 1.
  EXPECT_EQ(accuracy("", tensor_of({0, 1, 3, 2}, {1, 2, 2}), tensor_of({1, 1}, {1, 2})), std::vector<double>{1});
}

TEST(Accuracy, YieldsTheAccuracyOfEachClassAsSecondTop) {
  Made made = make_layer(text_of("ignore_label: 7", "top: 'accuracy' top: 'by_class'"), {{4, 3}, {4}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{}, {3}}));
  const std::vector<at::Tensor> tops = made.layer->forward({}, {scores(), tensor_of({0, 0, 1, 7}, {4})});
  expect_near(tops[0], {2.0 / 3}, 1e-12);
  expect_near(tops[1], {0.5, 1, 0}, 1e-12);
}

TEST(Accuracy, TakesNoPartInTheBackwardPass) {
  at::Tensor x = scores().requires_grad_();
  Made made = make_layer(text_of(""), {{4, 3}, {4}});
  EXPECT_FALSE(made.layer->forward({}, {x, tensor_of({0, 0, 1, 1}, {4})})[0].requires_grad());
}

TEST(Accuracy, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(text_of("top_k: 4"), {{2, 3}, {2}}),
            "net.prototxt:1:89: layer \"a\" (Accuracy) has top_k 4 of 3 classes; bottom \"x\" is [2, 3]");
  EXPECT_EQ(error_of([] {
              accuracy("", scores(), tensor_of({0, 1, 2, 3}, {4}));
            }),
            "net.prototxt:1:1: layer \"a\" (Accuracy) met label 3 in record 3 of a batch of \"label\", but \"x\" has 3 "
            "classes: "
            "labels go from 0 to 2");
}

}  // namespace
}  // namespace poseidon::caffe
