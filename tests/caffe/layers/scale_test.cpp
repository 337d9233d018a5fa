// Bias and Scale.
#include <functional>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string text_of(std::string_view type, int bottoms, std::string_view settings) {
  return base::concat("name: 's' type: '", type, "' bottom: 'x' ", bottoms == 2 ? "bottom: 'z' " : "", "top: 'y'\n",
                      type == "Scale" ? "scale_param { " : "bias_param { ", settings, " }");
}

// The operand's element for each element of a blob: indices along `axes` of the blob's axes from `axis` on.
std::vector<double> spread(const at::Tensor& operand, const Shape& shape, std::size_t axis) {
  const std::vector<double> values = values_of(operand);
  std::int64_t inner = 1;
  for (std::size_t i = axis + static_cast<std::size_t>(operand.dim()); i < shape.size(); ++i) inner *= shape[i];
  std::vector<double> spread;
  for (std::int64_t i = 0; i < elements_of(shape); ++i) {
    spread.push_back(values[static_cast<std::size_t>(i / inner % operand.numel())]);
  }
  return spread;
}

std::vector<double> combined(const at::Tensor& x, const std::vector<double>& operand,
                             const std::function<double(double, double)>& function) {
  std::vector<double> result = values_of(x);
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = function(result[i], operand[i]);
  return result;
}

struct Place {
  std::string_view settings;
  Shape operand;  // for a bottom of [2, 3, 4, 5]
  std::size_t axis;
};
const std::vector<Place>& places() {
  static const std::vector<Place> all = {
      {"", {3}, 1},
      {"axis: 0", {2}, 0},
      {"axis: -1", {5}, 3},
      {"axis: -4 num_axes: 2", {2, 3}, 0},
      {"axis: 1 num_axes: 2", {3, 4}, 1},
      {"axis: 2 num_axes: -1", {4, 5}, 2},
      {"axis: 0 num_axes: -1", {2, 3, 4, 5}, 0},
      {"axis: 3 num_axes: 0", {}, 0},
  };
  return all;
}

TEST(Scale, MultipliesAndBiasAddsWhatLiesAlongSomeAxes) {
  std::mt19937_64 random(1);
  const at::Tensor x = random_tensor({2, 3, 4, 5}, random);
  for (const Place& place : places()) {
    SCOPED_TRACE(place.settings);
    const at::Tensor z = random_tensor(place.operand, random);
    const std::vector<double> operand = spread(z, {2, 3, 4, 5}, place.axis);
    const std::vector<double> product = combined(x, operand, std::multiplies<>());
    const std::vector<double> sum = combined(x, operand, std::plus<>());
    expect_near(tops_of(text_of("Scale", 2, place.settings), {x, z})[0], product, 1e-14);
    expect_near(tops_of(text_of("Bias", 2, place.settings), {x, z})[0], sum, 1e-14);
    for (const std::string_view type : {"Scale", "Bias"}) {
      Made made = make_layer(text_of(type, 1, place.settings), {{2, 3, 4, 5}});
      ASSERT_EQ(made.layer->parameters().size(), 1u);
      EXPECT_EQ(made.layer->parameters()[0].shape, place.operand);
      made.layer->parameters()[0].value = z;
      expect_near(made.layer->forward({}, {x})[0], type == "Scale" ? product : sum, 1e-14);
    }
  }
}

TEST(Scale, StartsAtOneAndBiasAtZeroUnlessFilled) {
  expect_near(make_layer(text_of("Scale", 1, ""), {{1, 2}}).layer->parameters()[0].value, {1, 1}, 0);
  expect_near(make_layer(text_of("Bias", 1, ""), {{1, 2}}).layer->parameters()[0].value, {0, 0}, 0);
  expect_near(make_layer(text_of("Scale", 1, "filler { value: 3 }"), {{1, 2}}).layer->parameters()[0].value, {3, 3}, 0);
  expect_near(make_layer(text_of("Bias", 1, "filler { value: 3 }"), {{1, 2}}).layer->parameters()[0].value, {3, 3}, 0);
  // As in Caffe: with a filler that does not say its type and value, a factor is 0.
  expect_near(make_layer(text_of("Scale", 1, "filler { }"), {{1, 2}}).layer->parameters()[0].value, {0, 0}, 0);
}

TEST(Scale, AddsATrainedBiasOfTheFactorsShapeOnRequest) {
  const at::Tensor x = tensor_of({1, 2, 3, 4}, {2, 2});
  Made made = make_layer(text_of("Scale", 1, "bias_term: true bias_filler { value: 7 }"), {{2, 2}});
  ASSERT_EQ(made.layer->parameters().size(), 2u);
  EXPECT_EQ(made.layer->parameters()[0].name, "s.scale");
  EXPECT_EQ(made.layer->parameters()[1].name, "s.bias");
  made.layer->parameters()[0].value = tensor_of({10, 100}, {2});
  expect_near(made.layer->forward({}, {x})[0], {17, 207, 37, 407}, 0);

  const Made with_two =
      make_layer(text_of("Scale", 2, "axis: 0 bias_term: true bias_filler { value: 1 }"), {{2, 2}, {2}});
  ASSERT_EQ(with_two.layer->parameters().size(), 1u);
  EXPECT_EQ(with_two.layer->parameters()[0].name, "s.bias");
  expect_near(with_two.layer->forward({}, {x, tensor_of({2, -1}, {2})})[0], {3, 5, -2, -3}, 0);
}

TEST(Scale, AndBiasHaveTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(2);
  for (const Place& place : places()) {
    const at::Tensor x = random_tensor({2, 3, 4, 5}, random);
    const at::Tensor z = random_tensor(place.operand, random);
    const std::string with_bias = base::concat(place.settings, " bias_term: true filler { type: 'gaussian' }");
    expect_gradients_of(text_of("Scale", 1, with_bias), {x}, {0});
    expect_gradients_of(text_of("Scale", 2, with_bias), {x, z}, {0, 1});
    expect_gradients_of(text_of("Scale", 2, place.settings), {x, z}, {0, 1});
    expect_gradients_of(text_of("Bias", 1, place.settings), {x}, {0});
    expect_gradients_of(text_of("Bias", 2, place.settings), {x, z}, {0, 1});
  }
}

TEST(Bias, WorksInItsBottomsMemoryWhereItMay) {
  const Made made = make_layer(text_of("Bias", 1, "filler { value: 2 }"), {{1, 2}});
  const at::Tensor x = tensor_of({1, 5}, {1, 2});
  const at::Tensor y = made.layer->forward({.overwrite_bottom = true}, {x})[0];
  EXPECT_EQ(y.const_data_ptr(), x.const_data_ptr());
  expect_near(y.detach(), {3, 7}, 0);
}

TEST(Scale, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(text_of("Scale", 2, ""), {{2, 3}, {4}}),
            "net.prototxt:1:1: layer \"s\" (Scale) cannot lay \"z\", which is [4], along its first bottom from "
            "axis 1 on; bottom \"x\" is [2, 3]");
  EXPECT_EQ(setup_error(text_of("Bias", 2, "axis: 1"), {{2, 3}, {3, 1}}),
            "net.prototxt:1:1: layer \"s\" (Bias) cannot lay \"z\", which is [3, 1], along its first bottom from "
            "axis 1 on; bottom \"x\" is [2, 3]");
  EXPECT_EQ(setup_error(text_of("Scale", 1, "num_axes: 2"), {{2, 3}}),
            "net.prototxt:2:15: layer \"s\" (Scale) has num_axes 2; from axis 1 on there are 1, which -1 stands for; "
            "bottom \"x\" is [2, 3]");
  EXPECT_EQ(setup_error(text_of("Bias", 1, "axis: 2"), {{2, 3}}),
            "net.prototxt:1:1: layer \"s\" (Bias) has axis 2, but its bottom \"x\" is [2, 3], which has axes -2 to 1");
  const Made made = make_layer(text_of("Scale", 1, ""), {{2, 3}});
  EXPECT_EQ(error_of([&] { static_cast<void>(made.layer->top_shapes({{2, 4}})); }),
            "net.prototxt:1:1: layer \"s\" (Scale) cannot lay its array \"s.scale\", which is [3], along its first "
            "bottom from axis 1 on; bottom \"x\" is [2, 4]");
}

}  // namespace
}  // namespace poseidon::caffe
