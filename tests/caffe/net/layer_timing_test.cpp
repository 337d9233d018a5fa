#include "engines/caffe/net/layer_timing.h"

#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kNet = R"(name: 'n'
layer { name: 'in' type: 'Input' top: 'x' top: 'label' input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } } }
layer { name: 'conv' type: 'Convolution' bottom: 'x' top: 'c' convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: 'relu' type: 'ReLU' bottom: 'c' top: 'c' }
layer { name: 'pool' type: 'Pooling' bottom: 'c' top: 'p' pooling_param { kernel_size: 2 stride: 2 } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'p' top: 'y' inner_product_param { num_output: 3 } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'y' bottom: 'label' top: 'loss' }
)";

TEST(LayerTiming, MeasuresEachLayerInBothDirections) {
  Net net = make_net(kNet, {.dtype = at::kFloat});
  const NetTime time = time_layers(net, 3);
  ASSERT_EQ(time.layers.size(), 6u);
  EXPECT_EQ(time.layers[1].name, "conv");
  EXPECT_EQ(time.layers[1].type, "Convolution");
  for (std::size_t i = 0; i < 6; ++i) {
    const LayerTime& layer = time.layers[i];
    EXPECT_GT(layer.forward.min_ms, 0) << layer.name;
    EXPECT_LE(layer.forward.min_ms, layer.forward.median_ms);
    EXPECT_LE(layer.forward.median_ms, layer.forward.max_ms);
    // Nothing is differentiated by the input.
    EXPECT_EQ(layer.backward.median_ms > 0, i > 0) << layer.name;
  }
  EXPECT_GT(time.forward.median_ms, 0);
  EXPECT_GT(time.backward.median_ms, 0);
}

TEST(LayerTiming, LeavesArraysAndGradientsAlone) {
  Net net = make_net(kNet, {.dtype = at::kFloat});
  const std::string before = net.digest();
  time_layers(net, 1);
  EXPECT_EQ(net.digest(), before);
  for (const NetArray& array : net.arrays()) EXPECT_FALSE(array.value.grad().defined());
}

TEST(LayerTiming, DoesWithoutALoss) {
  Net net = make_net(
      "layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 3 } } } "
      "layer { name: 'relu' type: 'ReLU' bottom: 'x' top: 'x' }");
  const NetTime time = time_layers(net, 2);
  EXPECT_GT(time.forward.median_ms, 0);
  EXPECT_EQ(time.backward.median_ms, 0);
  EXPECT_EQ(time.layers[1].backward.median_ms, 0);
}

}  // namespace
}  // namespace poseidon::caffe
