// What holds for layers of any type: numbers of blobs, arrays and their settings, the registry, errors.
#include "engines/caffe/layers/layer.h"

#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using testing::error_of;
using testing::make_layer;
using testing::setup_error;
using testing::values_of;

constexpr std::string_view kDense = R"(name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  param { lr_mult: 1 decay_mult: 0.5 name: "shared" }
  param { lr_mult: 0 share_mode: PERMISSIVE }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { value: 0.5 } })";

TEST(Layer, NamesItsArraysAndReadsTheirSettings) {
  const testing::Made made = make_layer(kDense, {{2, 4}});
  const std::vector<Parameter>& parameters = made.layer->parameters();
  ASSERT_EQ(parameters.size(), 2u);
  EXPECT_EQ(parameters[0].name, "ip.weight");
  EXPECT_EQ(parameters[0].shape, (Shape{3, 4}));
  EXPECT_EQ(parameters[0].lr_mult, 1);
  EXPECT_EQ(parameters[0].decay_mult, 0.5);
  EXPECT_EQ(parameters[0].share_name, "shared");
  EXPECT_FALSE(parameters[0].share_any_shape);
  EXPECT_EQ(parameters[1].name, "ip.bias");
  EXPECT_EQ(parameters[1].shape, (Shape{3}));
  EXPECT_TRUE(parameters[1].share_any_shape);
  EXPECT_EQ(parameters[1].position.line, 3);
}

TEST(Layer, TrainsAnArrayUnlessItsRateIsZero) {
  const testing::Made made = make_layer(kDense, {{2, 4}});
  EXPECT_TRUE(made.layer->parameters()[0].value.requires_grad());
  EXPECT_FALSE(made.layer->parameters()[1].value.requires_grad());
}

TEST(Layer, DrawsItsArraysFromTheSeedAndTheirNames) {
  const auto weight = [](std::uint64_t seed) {
    return values_of(make_layer(kDense, {{2, 4}}, at::kDouble, Phase::kTrain, seed).layer->parameters()[0].value);
  };
  EXPECT_EQ(weight(1), weight(1));
  EXPECT_NE(weight(1), weight(2));
  // The first element, from the stream itself: uniform in ±sqrt(3 / 4).
  const double uniform = base::RandomStream(1, "ip.weight").words(0, 0, 0)[0] / 4294967296.0;
  EXPECT_DOUBLE_EQ(weight(1)[0], std::sqrt(0.75) * (2 * uniform - 1));
}

TEST(Layer, RefusesAWrongNumberOfBlobs) {
  EXPECT_EQ(setup_error("name: 'r'\ntype: 'ReLU' top: 'y'", {}),
            "net.prototxt:1:1: layer \"r\" (ReLU) wants 1 bottom and has 0");
  EXPECT_EQ(setup_error("name: 'r' type: 'ReLU' bottom: 'x' top: 'y' top: 'z'", {{1}}),
            "net.prototxt:1:1: layer \"r\" (ReLU) wants 1 top and has 2");
  EXPECT_EQ(setup_error("name: 'a' type: 'Accuracy' bottom: 'x' bottom: 'l'", {{1}, {1}}),
            "net.prototxt:1:1: layer \"a\" (Accuracy) wants 1 to 2 tops and has 0");
  EXPECT_EQ(
      setup_error("name: 'c' type: 'Convolution' top: 'y' convolution_param { num_output: 1 kernel_size: 1 }", {}),
      "net.prototxt:1:1: layer \"c\" (Convolution) wants at least 1 bottom and has 0");
}

TEST(Layer, MakesUpTheTopsOfALossThatHasNone) {
  const testing::Made made = make_layer("name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 'y'", {{2, 3}, {2}});
  EXPECT_EQ(made.layer->tops(), std::vector<std::string>{"(automatic top 0 of l)"});
}

TEST(Layer, RefusesMoreParamEntriesThanItHasArrays) {
  EXPECT_EQ(setup_error("name: 'r' type: 'ReLU' bottom: 'x' top: 'y'\nparam { lr_mult: 1 }", {{1}}),
            "net.prototxt:2:1: layer \"r\" (ReLU) has 1 param entries for 0 arrays");
}

TEST(Layer, GoesByItsOwnPhaseWhereItHasOne) {
  const proto::Message message = proto::parse_text("name: 'd' type: 'Dropout' phase: TEST", "LayerParameter", "n");
  EXPECT_EQ(layer_config(message, Phase::kTrain, 1, at::kFloat).phase, Phase::kTest);
}

TEST(LayerRegistry, NamesThePositionAndNearMatchesOfAnUnknownType) {
  EXPECT_EQ(setup_error("name: 'c'\n  type: 'Convolutoin' bottom: 'x' top: 'y'", {{1}}),
            "net.prototxt:2:3: layer \"c\" is of type \"Convolutoin\", which there is not; did you mean Convolution?");
}

TEST(LayerRegistry, TakesTypesOfOthers) {
  LayerRegistry registry;
  registry.add("Twice", make_relu);
  EXPECT_EQ(registry.types(), std::vector<std::string>{"Twice"});
  const proto::Message message =
      proto::parse_text("name: 't' type: 'Twice' bottom: 'x' top: 'y'", "LayerParameter", "net.prototxt");
  EXPECT_EQ(registry.create(layer_config(message, Phase::kTrain, 1, at::kFloat))->type(), "Twice");
}

}  // namespace
}  // namespace poseidon::caffe
