// Flatten, Reshape, Silence and Split.
#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string text_of(std::string_view type, std::string_view settings, std::string_view tops = "top: 'y'") {
  return base::concat("name: 'l' type: '", type, "' bottom: 'x' ", tops, "\n", settings);
}

// The shape of the top; its elements must be the bottom's, in their order.
Shape shape_of(const std::string& text, const Shape& bottom) {
  std::mt19937_64 random(1);
  const at::Tensor x = random_tensor(bottom, random);
  const at::Tensor y = tops_of(text, {x})[0];
  EXPECT_EQ(values_of(y), values_of(x)) << text;
  return y.sizes().vec();
}

Shape flattened(std::string_view settings, const Shape& bottom) {
  return shape_of(text_of("Flatten", base::concat("flatten_param { ", settings, " }")), bottom);
}

TEST(Flatten, MakesOneAxisOfSeveral) {
  EXPECT_EQ(flattened("", {2, 3, 4, 5}), (Shape{2, 60}));
  EXPECT_EQ(flattened("", {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(flattened("axis: 2", {2, 3, 4, 5}), (Shape{2, 3, 20}));
  EXPECT_EQ(flattened("axis: 0 end_axis: -2", {2, 3, 4, 5}), (Shape{24, 5}));
  EXPECT_EQ(flattened("axis: -3 end_axis: 2", {2, 3, 4, 5}), (Shape{2, 12, 5}));
  EXPECT_EQ(flattened("axis: 1 end_axis: 1", {2, 3, 4}), (Shape{2, 3, 4}));
  // Caffe's product over no axes.
  EXPECT_EQ(flattened("axis: 1 end_axis: 0", {2, 3}), (Shape{2, 1, 3}));
}

Shape reshaped(std::string_view settings, const Shape& bottom) {
  return shape_of(text_of("Reshape", base::concat("reshape_param { ", settings, " }")), bottom);
}

// The examples of Caffe's documentation of the fields, and those of its own tests.
TEST(Reshape, KeepsExtentsAndFindsWhatIsLeft) {
  EXPECT_EQ(reshaped("shape { dim: 0 dim: 0 dim: -1 }", {2, 3, 4, 5}), (Shape{2, 3, 20}));
  EXPECT_EQ(reshaped("shape { dim: 0 dim: -1 dim: 1 }", {2, 3, 4}), (Shape{2, 12, 1}));
  EXPECT_EQ(reshaped("shape { dim: 0 dim: 2 dim: 3 dim: -1 }", {4, 2, 3, 6}), (Shape{4, 2, 3, 6}));
  EXPECT_EQ(reshaped("shape { dim: -1 }", {2, 3, 4}), Shape{24});
  EXPECT_EQ(reshaped("shape { dim: 6 dim: 4 }", {2, 3, 4}), (Shape{6, 4}));
  EXPECT_EQ(reshaped("shape { dim: -1 dim: 0 }", {2, 6}), (Shape{2, 6}));
  EXPECT_EQ(reshaped("shape { dim: 1 }", {1, 1}), Shape{1});
  EXPECT_EQ(reshaped("shape { }", {1, 1}), Shape{});
  EXPECT_EQ(reshaped("", {1}), Shape{});
}

TEST(Reshape, ReplacesSomeAxesOnly) {
  EXPECT_EQ(reshaped("shape { dim: 2 dim: 2 } axis: 1 num_axes: 1", {3, 4, 5}), (Shape{3, 2, 2, 5}));
  EXPECT_EQ(reshaped("shape { dim: -1 } axis: 1", {3, 4, 5}), (Shape{3, 20}));
  EXPECT_EQ(reshaped("shape { dim: -1 } axis: 0 num_axes: 2", {3, 4, 5}), (Shape{12, 5}));
  EXPECT_EQ(reshaped("shape { dim: 1 } axis: 1 num_axes: 0", {3, 4}), (Shape{3, 1, 4}));
  // A negative axis counts from behind the last.
  EXPECT_EQ(reshaped("shape { dim: 1 dim: 1 } axis: -1 num_axes: 0", {3, 4}), (Shape{3, 4, 1, 1}));
  EXPECT_EQ(reshaped("shape { dim: 2 dim: 2 } axis: -2", {3, 4}), (Shape{3, 2, 2}));
  EXPECT_EQ(reshaped("shape { dim: 0 dim: -1 } axis: 1", {3, 4, 5, 2}), (Shape{3, 4, 10}));
}

TEST(Reshape, GoesByTheBatchThatItIsGiven) {
  const Made made = make_layer(text_of("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }"), {{4, 2, 3}});
  const at::Tensor x = tensor_of({1, 2, 3, 4, 5, 6}, {1, 2, 3});
  EXPECT_EQ(made.layer->forward({}, {x})[0].sizes().vec(), (Shape{1, 6}));
}

TEST(Reshaping, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  const at::Tensor x = random_tensor({2, 3, 4}, random);
  expect_gradients_of(text_of("Flatten", ""), {x}, {0});
  expect_gradients_of(text_of("Flatten", "flatten_param { axis: -2 end_axis: -1 }"), {x}, {0});
  expect_gradients_of(text_of("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }"), {x}, {0});
  expect_gradients_of(text_of("Reshape", "reshape_param { shape { dim: 6 } num_axes: 2 }"), {x}, {0});
  expect_gradients_of(text_of("Split", "", "top: 'y' top: 'z' top: 'w'"), {x}, {0});
}

TEST(Split, GivesItsBottomSeveralNames) {
  const at::Tensor x = tensor_of({1, 2, 3}, {3});
  const std::vector<at::Tensor> tops = tops_of(text_of("Split", "", "top: 'y' top: 'z'"), {x});
  ASSERT_EQ(tops.size(), 2u);
  for (const at::Tensor& top : tops) EXPECT_EQ(top.const_data_ptr(), x.const_data_ptr());
}

TEST(Silence, ReadsAnythingAndMakesNothing) {
  EXPECT_TRUE(
      tops_of("name: 's' type: 'Silence' bottom: 'x' bottom: 'y'", {tensor_of({1}, {1}), tensor_of({1, 2}, {1, 2})})
          .empty());
  EXPECT_EQ(setup_error(text_of("Silence", ""), {{1}}),
            "net.prototxt:1:1: layer \"l\" (Silence) wants 0 tops and has 1");
}

TEST(Reshaping, ExplainsWhatIsWrong) {
  const auto error = [](std::string_view settings) {
    return setup_error(text_of("Reshape", base::concat("reshape_param { ", settings, " }")), {{2, 3}});
  };
  EXPECT_EQ(
      error("shape { dim: 4 }"),
      "net.prototxt:2:17: layer \"l\" (Reshape) cannot make [4], which has 4 elements, of 6; bottom \"x\" is [2, 3]");
  EXPECT_EQ(error("shape { dim: 4 dim: -1 }"),
            "net.prototxt:2:17: layer \"l\" (Reshape) cannot make [4, 1], which has 4 elements, of 6; bottom \"x\" is "
            "[2, 3]");
  EXPECT_EQ(
      error("shape { dim: -1 dim: -1 }"),
      "net.prototxt:2:33: layer \"l\" (Reshape) has dim -1 for a second time; only one extent can be what is left");
  EXPECT_EQ(error("shape { dim: -2 }"),
            "net.prototxt:2:25: layer \"l\" (Reshape) has dim -2; it must be an extent, 0 for the bottom's own, or -1 "
            "for what is left");
  EXPECT_EQ(error("shape { dim: 6 dim: 1 dim: 0 }"),
            "net.prototxt:2:39: layer \"l\" (Reshape) has dim 0 for axis 2, which its bottom does not have; bottom "
            "\"x\" is [2, 3]");
  EXPECT_EQ(error("axis: 3"),
            "net.prototxt:2:17: layer \"l\" (Reshape) has axis 3; it must be from -3 to 2; bottom \"x\" is [2, 3]");
  EXPECT_EQ(error("num_axes: 2 axis: 1"),
            "net.prototxt:2:17: layer \"l\" (Reshape) has num_axes 2, but from axis 1 on there are 1; bottom \"x\" is "
            "[2, 3]");
  EXPECT_EQ(
      error("num_axes: -2"),
      "net.prototxt:2:17: layer \"l\" (Reshape) has num_axes -2; it must be at least 0, or -1 for all from axis on");
  EXPECT_EQ(setup_error(text_of("Flatten", "flatten_param { axis: 2 end_axis: 0 }"), {{2, 3, 4}}),
            "net.prototxt:2:25: layer \"l\" (Flatten) has end_axis 0 before axis 2; bottom \"x\" is [2, 3, 4]");
}

}  // namespace
}  // namespace poseidon::caffe
