// Functions of single elements: AbsVal, BNLL, Clip, ELU, Exp, Log, Power, PReLU, Sigmoid, Swish, TanH and Threshold.
#include <cmath>
#include <functional>
#include <limits>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

struct Case {
  std::string_view type;
  std::string_view settings;
  std::function<double(double)> function;
  bool positive = false;  // defined for positive x only
};

std::string text_of(std::string_view type, std::string_view settings) {
  return base::concat("name: 'f' type: '", type, "' bottom: 'x' top: 'y' ", settings);
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"AbsVal", "", [](double x) { return x < 0 ? -x : x; }},
      {"BNLL", "", [](double x) { return std::log(1 + std::exp(x)); }},
      {"Clip", "clip_param { min: -0.3 max: 0.7 }", [](double x) { return x < -0.3  ? -0.3
                                                                          : x > 0.7 ? 0.7
                                                                                    : x; }},
      {"ELU", "", [](double x) { return x > 0 ? x : std::exp(x) - 1; }},
      {"ELU", "elu_param { alpha: 0.5 }", [](double x) { return x > 0 ? x : 0.5 * (std::exp(x) - 1); }},
      {"ELU", "elu_param { alpha: -2 }", [](double x) { return x > 0 ? x : -2 * (std::exp(x) - 1); }},
      {"Exp", "", [](double x) { return std::exp(x); }},
      {"Exp", "exp_param { base: 2 }", [](double x) { return std::pow(2, x); }},
      {"Exp", "exp_param { base: 3 scale: -0.5 shift: 1.5 }", [](double x) { return std::pow(3, 1.5 - 0.5 * x); }},
      {"Exp", "exp_param { scale: 2 shift: -1 }", [](double x) { return std::exp(2 * x - 1); }},
      {"Exp", "exp_param { base: 1 shift: 4 }", [](double) { return 1; }},
      {"Log", "", [](double x) { return std::log(x); }, true},
      {"Log", "log_param { base: 10 }", [](double x) { return std::log10(x); }, true},
      {"Log", "log_param { base: 2 scale: 3 shift: 0.5 }", [](double x) { return std::log2(0.5 + 3 * x); }, true},
      {"Log", "log_param { base: 0.5 shift: 9 scale: -1 }", [](double x) { return -std::log2(9 - x); }},
      {"Power", "", [](double x) { return x; }},
      {"Power", "power_param { scale: 3 shift: -2 }", [](double x) { return 3 * x - 2; }},
      {"Power", "power_param { power: 2 }", [](double x) { return x * x; }},
      {"Power", "power_param { power: 3 scale: 2 shift: 1 }",
       [](double x) { return (2 * x + 1) * (2 * x + 1) * (2 * x + 1); }},
      {"Power", "power_param { power: 0.37 scale: 0.83 shift: 2.4 }",
       [](double x) { return std::pow(0.83 * x + 2.4, 0.37); }, true},
      {"Power", "power_param { power: -0.5 }", [](double x) { return 1 / std::sqrt(x); }, true},
      {"Sigmoid", "", [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"Swish", "", [](double x) { return x / (1 + std::exp(-x)); }},
      {"Swish", "swish_param { beta: 1.7 }", [](double x) { return x / (1 + std::exp(-1.7 * x)); }},
      {"Swish", "swish_param { beta: 0 }", [](double x) { return x / 2; }},
      {"TanH", "", [](double x) { return (1 - std::exp(-2 * x)) / (1 + std::exp(-2 * x)); }},
      {"Threshold", "", [](double x) { return x > 0 ? 1 : 0; }},
      {"Threshold", "threshold_param { threshold: 0.4 }", [](double x) { return x > 0.4 ? 1 : 0; }},
  };
  return all;
}

at::Tensor example(const Case& one, const Shape& shape, std::mt19937_64& random) {
  const at::Tensor x = random_tensor(shape, random);
  return one.positive ? x.abs() + 0.1 : x;
}

TEST(Activations, ComputeTheirFunctionsOfEachElement) {
  std::mt19937_64 random(1);
  for (const Case& one : cases()) {
    for (const Shape& shape : {Shape{}, Shape{7}, Shape{2, 3, 4}, Shape{2, 1, 3, 2, 2}}) {
      const std::string text = text_of(one.type, one.settings);
      SCOPED_TRACE(text + " of " + base::readable_shape(shape));
      const at::Tensor x = example(one, shape, random);
      std::vector<double> wanted;
      for (const double value : values_of(x)) wanted.push_back(one.function(value));
      const at::Tensor y = tops_of(text, {x})[0];
      EXPECT_EQ(y.sizes().vec(), shape);
      expect_near(y, wanted, 1e-12);
    }
  }
}

TEST(Activations, HaveTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(2);
  for (const Case& one : cases()) {
    const bool constant = one.type == "Threshold";
    if (!constant) expect_gradients_of(text_of(one.type, one.settings), {example(one, {4, 5}, random)}, {0});
  }
}

TEST(Activations, ComputeInTheirBottomsMemoryOrNotWithTheSameResultAndGradient) {
  std::mt19937_64 random(3);
  for (const Case& one : cases()) {
    if (one.type == "Threshold") continue;
    const Made made = make_layer(text_of(one.type, one.settings), {{4, 5}});
    const at::Tensor values = example(one, {4, 5}, random);
    const auto gradient = [&](bool in_place) {
      const at::Tensor x = values.clone().requires_grad_();
      const at::Tensor y = made.layer->forward({.overwrite_bottom = in_place}, {x * 1})[0];
      y.pow(2).sum().backward();
      return std::pair(values_of(y), values_of(x.grad()));
    };
    EXPECT_EQ(gradient(true), gradient(false)) << one.type;
  }
}

// At the kinks themselves Caffe's choices count.
TEST(Activations, HaveCaffesDerivativesAtTheirKinks) {
  const auto derivative = [](std::string_view type, std::string_view settings, double at) {
    const Made made = make_layer(text_of(type, settings), {{1}});
    const at::Tensor x = tensor_of({at}, {1}).requires_grad_();
    made.layer->forward({}, {x})[0].sum().backward();
    return x.grad().item<double>();
  };
  EXPECT_EQ(derivative("AbsVal", "", 0), 0);
  EXPECT_EQ(derivative("Clip", "clip_param { min: -1 max: 1 }", -1), 1);
  EXPECT_EQ(derivative("Clip", "clip_param { min: -1 max: 1 }", 1), 1);
  EXPECT_EQ(derivative("ELU", "elu_param { alpha: 0.25 }", 0), 0.25);
  // Where Caffe divides zero by zero.
  EXPECT_EQ(derivative("Power", "power_param { power: 3 }", 0), 0);
  EXPECT_EQ(derivative("Power", "power_param { power: 2 scale: 2 shift: 2 }", -1), 0);
}

TEST(Bnll, NeitherOverflowsNorLosesSmallResults) {
  const std::vector<double> x = {-800, -40, 0, 40, 60, 800};
  expect_near(tops_of(text_of("BNLL", ""), {tensor_of(x, {6})})[0],
              {0, std::exp(-40), std::log(2), 40 + std::exp(-40), 60, 800}, 1e-14);
  const Made made = make_layer(text_of("BNLL", ""), {{6}});
  const at::Tensor leaf = tensor_of(x, {6}).requires_grad_();
  made.layer->forward({}, {leaf})[0].sum().backward();
  expect_near(leaf.grad(), {0, 1 / (1 + std::exp(40)), 0.5, 1 / (1 + std::exp(-40)), 1, 1}, 1e-14);
}

TEST(Power, IsAConstantWithoutPowerOrScale) {
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor x = tensor_of({-infinity, 0, 5}, {3});
  expect_near(tops_of(text_of("Power", "power_param { power: 0 }"), {x})[0], {1, 1, 1}, 0);
  expect_near(tops_of(text_of("Power", "power_param { power: 3 scale: 0 shift: 2 }"), {x})[0], {8, 8, 8}, 0);
}

constexpr std::string_view kByChannel = "name: 'p' type: 'PReLU' bottom: 'x' top: 'y'";
constexpr std::string_view kShared =
    "name: 'p' type: 'PReLU' bottom: 'x' top: 'y' prelu_param { channel_shared: true }";

TEST(PRelu, StartsWithASlopeOfAQuarterForEachChannel) {
  const Made by_channel = make_layer(kByChannel, {{2, 3, 2, 2}});
  ASSERT_EQ(by_channel.layer->parameters().size(), 1u);
  EXPECT_EQ(by_channel.layer->parameters()[0].name, "p.slope");
  EXPECT_EQ(by_channel.layer->parameters()[0].shape, (Shape{3}));
  expect_near(by_channel.layer->parameters()[0].value, {0.25, 0.25, 0.25}, 0);
  const Made shared = make_layer(kShared, {{2, 3, 2, 2}});
  EXPECT_EQ(shared.layer->parameters()[0].shape, Shape{});
  const Made filled =
      make_layer("name: 'p' type: 'PReLU' bottom: 'x' top: 'y' prelu_param { filler { value: 0.5 } }", {{2, 2}});
  expect_near(filled.layer->parameters()[0].value, {0.5, 0.5}, 0);
}

TEST(PRelu, ScalesWhatIsNegative) {
  Made made = make_layer(kByChannel, {{1, 2, 3}});
  made.layer->parameters()[0].value = tensor_of({0.5, -2}, {2});
  const at::Tensor x = tensor_of({-1, 0, 2, -3, 4, -0.5}, {1, 2, 3});
  expect_near(made.layer->forward({}, {x})[0], {-0.5, 0, 2, 6, 4, 1}, 0);
  expect_near(tops_of(kShared, {x})[0], {-0.25, 0, 2, -0.75, 4, -0.125}, 0);
}

TEST(PRelu, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(4);
  for (const std::string_view text : {kByChannel, kShared}) {
    for (const Shape& shape : {Shape{6, 4}, Shape{2, 3, 2, 2}, Shape{3, 1, 5}}) {
      expect_gradients_of(text, {random_tensor(shape, random)}, {0});
    }
  }
}

TEST(Activations, ExplainWhatIsWrong) {
  const auto error = [](std::string_view type, std::string_view settings, const Shape& bottom = {1}) {
    return setup_error(base::concat("name: 'f' type: '", type, "' bottom: 'x' top: 'y'\n", settings), {bottom});
  };
  EXPECT_EQ(error("Clip", "clip_param { min: 0 }"),
            "net.prototxt:2:1: layer \"f\" (Clip) needs both limits: clip_param { min: 0 max: 1 }");
  EXPECT_EQ(error("Clip", "clip_param { min: 2 max: 1 }"),
            "net.prototxt:2:14: layer \"f\" (Clip) has min 2 above max 1");
  EXPECT_EQ(error("Exp", "exp_param { base: 0 }"),
            "net.prototxt:2:13: layer \"f\" (Exp) has base 0; it must be above 0, or -1 for e");
  EXPECT_EQ(error("Log", "log_param { base: -2 }"),
            "net.prototxt:2:13: layer \"f\" (Log) has base -2; it must be above 0, or -1 for e");
  EXPECT_EQ(error("Log", "log_param { base: 1 }"),
            "net.prototxt:2:13: layer \"f\" (Log) has base 1, to which there are no logarithms");
  EXPECT_EQ(error("PReLU", ""),
            "net.prototxt:1:1: layer \"f\" (PReLU) wants at least 2 axes, channels on axis 1; bottom \"x\" is [1]");
}

}  // namespace
}  // namespace poseidon::caffe
