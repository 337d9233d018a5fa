#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kPlain = "name: 'r' type: 'ReLU' bottom: 'x' top: 'y'";
constexpr std::string_view kLeaky = "name: 'r' type: 'ReLU' bottom: 'x' top: 'y' relu_param { negative_slope: 0.1 }";
constexpr std::string_view kFolding = "name: 'r' type: 'ReLU' bottom: 'x' top: 'y' relu_param { negative_slope: -1 }";

at::Tensor example() {
  return tensor_of({-2, -0.5, 0, 3}, {2, 2});
}

TEST(Relu, CutsOrScalesWhatIsNegative) {
  expect_near(make_layer(kPlain, {{2, 2}}).layer->forward({}, {example()})[0], {0, 0, 0, 3}, 0);
  expect_near(make_layer(kLeaky, {{2, 2}}).layer->forward({}, {example()})[0], {-0.2, -0.05, 0, 3}, 1e-12);
  expect_near(make_layer(kFolding, {{2, 2}}).layer->forward({}, {example()})[0], {2, 0.5, 0, 3}, 1e-12);
}

TEST(Relu, WorksInItsBottomsMemoryWhereItMay) {
  for (const std::string_view text : {kPlain, kLeaky}) {
    const at::Tensor x = example();
    const at::Tensor y = make_layer(text, {{2, 2}}).layer->forward({.overwrite_bottom = true}, {x})[0];
    EXPECT_EQ(y.const_data_ptr(), x.const_data_ptr());
  }
  // The sign is lost for a negative slope, so that one keeps its input.
  const at::Tensor x = example();
  expect_near(make_layer(kFolding, {{2, 2}}).layer->forward({.overwrite_bottom = true}, {x})[0], {2, 0.5, 0, 3}, 1e-12);
  expect_near(x, {-2, -0.5, 0, 3}, 0);
}

TEST(Relu, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  for (const std::string_view text : {kPlain, kLeaky, kFolding}) {
    Made made = make_layer(text, {{5, 4}});
    // An even number of distinct values has none closer than half a step to the kink but zero itself, which is moved.
    expect_gradients(*made.layer, {distinct_tensor({5, 4}, random) + 0.01}, {0});
  }
}

TEST(Relu, HasTheSameGradientInPlace) {
  for (const std::string_view text : {kPlain, kLeaky}) {
    Made made = make_layer(text, {{2, 2}});
    const auto gradient = [&](bool in_place) {
      const at::Tensor x = example().requires_grad_();
      made.layer->forward({.overwrite_bottom = in_place}, {x * 2})[0].pow(2).sum().backward();
      return values_of(x.grad());
    };
    EXPECT_EQ(gradient(true), gradient(false));
  }
}

}  // namespace
}  // namespace poseidon::caffe
