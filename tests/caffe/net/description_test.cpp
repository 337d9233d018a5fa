#include "engines/caffe/net/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using ::testing::HasSubstr;
using testing::net_message;
using Shapes = std::vector<std::vector<std::int64_t>>;

plan::ModelDescription describe_file(const std::string& file, const Shape& record) {
  return describe(proto::read_text(std::filesystem::path(POSEIDON_SOURCE_FOLDER) / file, "NetParameter"), standard_layers(), record);
}

const plan::DescribedLayer& layer(const plan::ModelDescription& description, const std::string& name) {
  for (const plan::DescribedLayer& candidate : description.layers) {
    if (candidate.name == name) return candidate;
  }
  throw std::out_of_range(name);
}

TEST(Describe, CountsWhatLeNetTrainsAndComputes) {
  const plan::ModelDescription net = describe_file("examples/digits/lenet_train_test.prototxt", {1, 28, 28});
  EXPECT_EQ(net.name, "LeNet");
  // 20·25 + 20, 50·500 + 50, 500·800 + 500, 10·500 + 10.
  EXPECT_EQ(net.parameters(), 520u + 25'050u + 400'500u + 5'010u);
  EXPECT_EQ(layer(net, "conv2").parameters, (Shapes{{50, 20, 5, 5}, {50}}));
  EXPECT_FALSE(layer(net, "conv2").has_factors);
  EXPECT_TRUE(layer(net, "ip1").has_factors);
  EXPECT_EQ(layer(net, "ip1").rows_per_sample, 1);
  // 24 x 24 places of 20 filters of 25 weights; a bias each. Nothing is trained before it, so backward is one product too.
  EXPECT_DOUBLE_EQ(layer(net, "conv1").forward_flops, 2 * 24 * 24 * 20 * 25 + 24 * 24 * 20);
  EXPECT_DOUBLE_EQ(layer(net, "conv1").backward_flops, 2 * 24 * 24 * 20 * 25 + 24 * 24 * 20);
  EXPECT_DOUBLE_EQ(layer(net, "pool1").forward_flops, 12 * 12 * 20 * 4);
  EXPECT_DOUBLE_EQ(layer(net, "pool1").backward_flops, 12 * 12 * 20);
  EXPECT_DOUBLE_EQ(layer(net, "conv2").forward_flops, 2 * 8 * 8 * 50 * 500 + 8 * 8 * 50);
  EXPECT_DOUBLE_EQ(layer(net, "conv2").backward_flops, 4 * 8 * 8 * 50 * 500 + 8 * 8 * 50);
  EXPECT_DOUBLE_EQ(layer(net, "ip1").forward_flops, 2 * 500 * 800 + 500);
  EXPECT_DOUBLE_EQ(layer(net, "ip1").backward_flops, 4 * 500 * 800 + 500);
  EXPECT_DOUBLE_EQ(layer(net, "relu1").forward_flops, 500);
  EXPECT_DOUBLE_EQ(layer(net, "loss").forward_flops, 50);
}

TEST(Describe, AgreesWithTheDescriptionThatWasWrittenByHand) {
  const plan::ModelDescription net = describe_file("examples/digits/lenet_train_test.prototxt", {1, 28, 28});
  // examples/models/lenet.json: forward_flops_per_sample + backward_flops_per_sample.
  EXPECT_DOUBLE_EQ(net.flops(), 4'616'500 + 8'615'430);
}

constexpr const char* kNet =
    "layer { name: 'd' type: 'Data' top: 'x' top: 'y' data_param { source: 'nowhere' backend: LMDB batch_size: 8 }"
    "  transform_param { %s } }"
    "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'c' convolution_param { num_output: 4 kernel_size: 3 group: %s } }"
    "layer { name: 'f' type: 'InnerProduct' bottom: 'c' top: 'f' inner_product_param { num_output: 2 bias_term: false } %s }"
    "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'f' bottom: 'y' top: 'l' }";

plan::ModelDescription describe_net(const char* transform, const char* group = "1", const char* frozen = "", const Shape& record = {}) {
  char text[1000];
  std::snprintf(text, sizeof text, kNet, transform, group, frozen);
  return describe(net_message(text), standard_layers(), record);
}

TEST(Describe, TakesTheRecordFromTheCutAndTheColours) {
  EXPECT_EQ(layer(describe_net("crop_size: 6 force_color: true"), "c").parameters[0], (Shape{4, 3, 3, 3}));
  EXPECT_EQ(layer(describe_net("crop_size: 6 force_gray: true"), "c").parameters[0], (Shape{4, 1, 3, 3}));
  EXPECT_EQ(layer(describe_net("crop_size: 6 mean_value: 1 mean_value: 2"), "c").parameters[0], (Shape{4, 2, 3, 3}));
  EXPECT_EQ(layer(describe_net("crop_size: 6 force_color: true", "1", "", {5, 9, 7}), "c").parameters[0], (Shape{4, 5, 3, 3}))
      << "what the user says goes before";
}

TEST(Describe, CountsGroupsOnce) {
  // 4 x 4 places, 4 filters, of 1 channel of 2 each.
  const auto net = describe_net("crop_size: 6 mean_value: 1 mean_value: 2", "2");
  EXPECT_DOUBLE_EQ(layer(net, "c").forward_flops, 2 * 16 * 4 * 9 + 16 * 4);
}

// Ten records of 6 numbers, which an InnerProduct with 6 outputs makes, so that a gradient is wanted.
plan::DescribedLayer described(const std::string& layers) {
  return layer(describe(net_message("layer { name: 'i' type: 'Input' top: 'in' input_param { shape { dim: 10 dim: 6 } } }"
                                    "layer { name: 'f' type: 'InnerProduct' bottom: 'in' top: 'x'"
                                    "  inner_product_param { num_output: 6 } }" +
                                    layers),
                        standard_layers(), {}),
               "l");
}

TEST(Describe, CountsWhatIsComputedAndNotWhatIsMoved) {
  const auto counts = [](const std::string& layers) {
    const plan::DescribedLayer one = described(layers);
    return std::pair(one.forward_flops, one.backward_flops);
  };
  EXPECT_EQ(counts("layer { name: 'l' type: 'Sigmoid' bottom: 'x' top: 'y' }"), std::pair(6.0, 6.0));
  EXPECT_EQ(counts("layer { name: 'l' type: 'Slice' bottom: 'x' top: 'y' top: 'z' }"), std::pair(0.0, 0.0));
  EXPECT_EQ(counts("layer { name: 'l' type: 'Concat' bottom: 'x' bottom: 'in' top: 'y' }"), std::pair(0.0, 0.0));
  EXPECT_EQ(counts("layer { name: 'l' type: 'Eltwise' bottom: 'x' bottom: 'in' top: 'y' }"), std::pair(12.0, 12.0));
  EXPECT_EQ(counts("layer { name: 'l' type: 'Reduction' bottom: 'x' top: 'y' reduction_param { axis: 1 } }"),
            std::pair(6.0, 6.0));
  EXPECT_EQ(counts("layer { name: 'l' type: 'ArgMax' bottom: 'x' top: 'y' }"), std::pair(6.0, 0.0));
  // A product and its two gradients; with a bias a sum and its one.
  EXPECT_EQ(counts("layer { name: 'l' type: 'Scale' bottom: 'x' top: 'y' }"), std::pair(6.0, 12.0));
  EXPECT_EQ(counts("layer { name: 'l' type: 'Scale' bottom: 'x' top: 'y' scale_param { bias_term: true } }"),
            std::pair(12.0, 18.0));
  // Images of 2 by 3; each pixel is in a window of both levels.
  const std::string image =
      "layer { name: 'r' type: 'Reshape' bottom: 'x' top: 'image'"
      "  reshape_param { shape { dim: 0 dim: 1 dim: 2 dim: 3 } } }";
  EXPECT_EQ(counts(image + "layer { name: 'l' type: 'SPP' bottom: 'image' top: 'y' spp_param { pyramid_height: 2 } }"),
            std::pair(12.0, 5.0));
  EXPECT_EQ(counts(image + "layer { name: 'l' type: 'Pooling' bottom: 'image' top: 'y'"
                           "  pooling_param { pool: STOCHASTIC kernel_size: 2 } }"),
            std::pair(8.0, 2.0));
}

TEST(Describe, CountsADeconvolutionByItsBottom) {
  const auto net =
      describe(net_message("layer { name: 'i' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 3 dim: 5 } } }"
                           "layer { name: 'd' type: 'Deconvolution' bottom: 'x' top: 'd'"
                           "  convolution_param { num_output: 4 kernel_size: 3 stride: 2 } }"),
               standard_layers(), {});
  // Of one record: 15 elements, each times 4 x 3 weights, into 4 x 11 outputs with a bias.
  EXPECT_DOUBLE_EQ(layer(net, "d").forward_flops, 2 * 15 * 12 + 44);
  EXPECT_DOUBLE_EQ(layer(net, "d").backward_flops, 2 * 15 * 12 + 44);
}

TEST(Describe, CountsEveryStepOfARecurrentLayer) {
  const auto net = describe(
      net_message("layer { name: 'i' type: 'Input' top: 'x' top: 'cont'"
                  "  input_param { shape { dim: 6 dim: 2 dim: 3 } shape { dim: 6 dim: 2 } } }"
                  "layer { name: 'r' type: 'LSTM' bottom: 'x' bottom: 'cont' top: 'r' recurrent_param { num_output: 5 } }"),
      standard_layers(), {});
  // 12 steps, weights [20, 3] and [20, 5], a bias of 20; the net's batch counts as 6 records. Backward the state's
  // gradient comes on top, not the input's.
  EXPECT_DOUBLE_EQ(layer(net, "r").forward_flops, 12.0 * (2 * 60 + 20 + 2 * 100) / 6);
  EXPECT_DOUBLE_EQ(layer(net, "r").backward_flops, 12.0 * (2 * 60 + 20 + 4 * 100) / 6);
}

TEST(Describe, ListsASingleTrainedNumberAsAnArrayOfOne) {
  EXPECT_EQ(described("layer { name: 'l' type: 'PReLU' bottom: 'x' top: 'y' prelu_param { channel_shared: true } }").parameters,
            (Shapes{{1}}));
}

TEST(Describe, LeavesOutWhatIsNotTrained) {
  const auto net = describe_net("crop_size: 6 force_color: true", "1", "param { lr_mult: 0 }");
  EXPECT_TRUE(layer(net, "f").parameters.empty());
  EXPECT_FALSE(layer(net, "f").has_factors);
  // Its weight's gradient is not computed, its input's is: 64 inputs, 2 outputs.
  EXPECT_DOUBLE_EQ(layer(net, "f").forward_flops, 2 * 64 * 2);
  EXPECT_DOUBLE_EQ(layer(net, "f").backward_flops, 2 * 64 * 2);
}

TEST(Describe, SaysWhatToDoAboutRecordsOfUnknownSize) {
  const std::string told = testing::error_of([] { describe_net("crop_size: 6"); });
  EXPECT_THAT(told, HasSubstr("layer \"d\""));
  EXPECT_THAT(told, HasSubstr("nowhere"));
  EXPECT_THAT(told, HasSubstr("--record"));
}

TEST(Describe, RefusesANetWithoutAnythingToTrain) {
  const std::string told = testing::error_of([] {
    describe(net_message("layer { name: 'i' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 3 } } }"), standard_layers(), {});
  });
  EXPECT_THAT(told, HasSubstr("nothing to train"));
}

TEST(Describe, TakesADeployNetWithoutData) {
  const auto net = describe(net_message("layer { name: 'i' type: 'Input' top: 'x' input_param { shape { dim: 10 dim: 3 } } }"
                                        "layer { name: 'f' type: 'InnerProduct' bottom: 'x' top: 'f'"
                                        "  inner_product_param { num_output: 5 } }"),
                            standard_layers(), {});
  EXPECT_EQ(net.parameters(), 20u);
  EXPECT_EQ(layer(net, "f").rows_per_sample, 1);
  EXPECT_DOUBLE_EQ(layer(net, "f").forward_flops, 2 * 15 + 5) << "of one record, whatever the batch";
}

}  // namespace
}  // namespace poseidon::caffe
