#include "engines/caffe/proto/upgrade.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/message.h"
#include "engines/caffe/proto/upgrade_file.h"
#include "tests/caffe/proto/bytes.h"

namespace poseidon::caffe::proto {
namespace {

using testing_bytes::bytes_of;
using testing_bytes::error_of;
using Words = std::vector<std::string>;

Message net(std::string_view text) {
  return parse_text(text, "NetParameter", "net.prototxt");
}
Message solver(std::string_view text) {
  return parse_text(text, "SolverParameter", "solver.prototxt");
}
void expect_same(std::string_view old, std::string_view present) {
  EXPECT_EQ(net(old).as_text(), net(present).as_text());
}

TEST(Upgrade, LeavesThePresentFormAlone) {
  const Message message =
      net("layer { name: 'a' type: 'Data' data_param { scale: 0.5 } } "
          "layer { name: 'b' type: 'BatchNorm' param { lr_mult: 0 } }");
  EXPECT_TRUE(message.old_forms().empty());
  // Caffe does not look at the old place of `scale` in a layer of the present form.
  EXPECT_FALSE(message.messages("layer")[0].has("transform_param"));
}

TEST(Upgrade, TurnsLayersIntoLayer) {
  expect_same(R"(
      name: 'n' force_backward: true
      layers { name: 'conv1' type: CONVOLUTION bottom: 'data' top: 'conv1' blobs_lr: 1 blobs_lr: 2 weight_decay: 1
               weight_decay: 0 convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: 'xavier' } }
               include { phase: TRAIN } exclude { stage: 'x' } }
      layers { name: 'ip' type: INNER_PRODUCT bottom: 'conv1' top: 'ip' param: 'w' param: 'b' blob_share_mode: PERMISSIVE
               blobs_lr: 3 inner_product_param { num_output: 10 } }
      layers { name: 'loss' type: SOFTMAX_LOSS bottom: 'ip' bottom: 'label' loss_weight: 0.5 loss_param { ignore_label: 3 } })",
              R"(
      name: 'n' force_backward: true
      layer { name: 'conv1' type: 'Convolution' bottom: 'data' top: 'conv1' param { lr_mult: 1 decay_mult: 1 }
              param { lr_mult: 2 decay_mult: 0 }
              convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: 'xavier' } }
              include { phase: TRAIN } exclude { stage: 'x' } }
      layer { name: 'ip' type: 'InnerProduct' bottom: 'conv1' top: 'ip'
              param { name: 'w' share_mode: PERMISSIVE lr_mult: 3 } param { name: 'b' }
              inner_product_param { num_output: 10 } }
      layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' loss_weight: 0.5
              loss_param { ignore_label: 3 } })");
  EXPECT_EQ(net("layers { type: RELU }").old_forms(), Words{"layers of the form `layers { type: CONVOLUTION }`"});
}

TEST(Upgrade, KnowsEveryTypeOfLayers) {
  for (const auto& [old, present] : std::vector<std::pair<std::string, std::string>>{
           {"ABSVAL", "AbsVal"},
           {"ACCURACY", "Accuracy"},
           {"ARGMAX", "ArgMax"},
           {"BNLL", "BNLL"},
           {"CONCAT", "Concat"},
           {"CONTRASTIVE_LOSS", "ContrastiveLoss"},
           {"CONVOLUTION", "Convolution"},
           {"DATA", "Data"},
           {"DECONVOLUTION", "Deconvolution"},
           {"DROPOUT", "Dropout"},
           {"DUMMY_DATA", "DummyData"},
           {"ELTWISE", "Eltwise"},
           {"EUCLIDEAN_LOSS", "EuclideanLoss"},
           {"EXP", "Exp"},
           {"FLATTEN", "Flatten"},
           {"HDF5_DATA", "HDF5Data"},
           {"HDF5_OUTPUT", "HDF5Output"},
           {"HINGE_LOSS", "HingeLoss"},
           {"IM2COL", "Im2col"},
           {"IMAGE_DATA", "ImageData"},
           {"INFOGAIN_LOSS", "InfogainLoss"},
           {"INNER_PRODUCT", "InnerProduct"},
           {"LRN", "LRN"},
           {"MEMORY_DATA", "MemoryData"},
           {"MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"},
           {"MVN", "MVN"},
           {"POOLING", "Pooling"},
           {"POWER", "Power"},
           {"RELU", "ReLU"},
           {"SIGMOID", "Sigmoid"},
           {"SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"},
           {"SILENCE", "Silence"},
           {"SLICE", "Slice"},
           {"SOFTMAX", "Softmax"},
           {"SOFTMAX_LOSS", "SoftmaxWithLoss"},
           {"SPLIT", "Split"},
           {"TANH", "TanH"},
           {"THRESHOLD", "Threshold"},
           {"WINDOW_DATA", "WindowData"},
       }) {
    EXPECT_EQ(net("layers { type: " + old + " }").messages("layer")[0].text("type"), present);
  }
}

TEST(Upgrade, KeepsTheSettingsOfEveryTypeOfLayers) {
  for (const std::string field : {"accuracy_param { top_k: 2 }",
                                  "argmax_param { top_k: 2 }",
                                  "concat_param { axis: 2 }",
                                  "contrastive_loss_param { margin: 2 }",
                                  "convolution_param { group: 2 }",
                                  "data_param { batch_size: 2 }",
                                  "dropout_param { dropout_ratio: 0.2 }",
                                  "dummy_data_param { num: 2 }",
                                  "eltwise_param { operation: MAX }",
                                  "exp_param { base: 2 }",
                                  "hdf5_data_param { batch_size: 2 }",
                                  "hdf5_output_param { file_name: 'f' }",
                                  "hinge_loss_param { norm: L2 }",
                                  "image_data_param { batch_size: 2 }",
                                  "infogain_loss_param { source: 'f' }",
                                  "inner_product_param { axis: 2 }",
                                  "lrn_param { k: 2 }",
                                  "memory_data_param { width: 2 }",
                                  "mvn_param { eps: 2 }",
                                  "pooling_param { pad: 2 }",
                                  "power_param { power: 2 }",
                                  "relu_param { negative_slope: 2 }",
                                  "sigmoid_param { engine: CAFFE }",
                                  "slice_param { axis: 2 }",
                                  "softmax_param { axis: 2 }",
                                  "tanh_param { engine: CAFFE }",
                                  "threshold_param { threshold: 2 }",
                                  "transform_param { scale: 2 }",
                                  "window_data_param { batch_size: 2 }",
                                  "loss_param { normalize: true }"}) {
    expect_same("layers { " + field + " }", "layer { " + field + " }");
  }
}

TEST(Upgrade, MovesTheTransformationOutOfTheSettingsOfDataLayers) {
  const std::string transformation = "scale: 0.5 mean_file: 'm' crop_size: 3 mirror: true";
  for (const auto& [old, present] : std::vector<std::pair<std::string, std::string>>{
           {"type: DATA data_param", "type: 'Data' data_param"},
           {"type: IMAGE_DATA image_data_param", "type: 'ImageData' image_data_param"},
           {"type: WINDOW_DATA window_data_param", "type: 'WindowData' window_data_param"}}) {
    expect_same("layers { " + old + " { source: 's' " + transformation + " } }",
                "layer { " + present + " { source: 's' } transform_param { " + transformation + " } }");
  }
  EXPECT_EQ(net("layers { type: DATA data_param { mirror: true } }").old_forms(),
            (Words{"layers of the form `layers { type: CONVOLUTION }`",
                   "settings of data layers that belong into transform_param"}));
}

TEST(Upgrade, MakesALayerOfInputs) {
  expect_same(
      "input: 'a' input: 'b' input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5 input_dim: 6 "
      "input_dim: 7 input_dim: 8 layer { name: 'x' } layer { name: 'y' }",
      "layer { name: 'input' type: 'Input' top: 'a' top: 'b' input_param { shape { dim: 1 dim: 2 dim: 3 dim: 4 } "
      "shape { dim: 5 dim: 6 dim: 7 dim: 8 } } } layer { name: 'x' } layer { name: 'y' }");
  expect_same(
      "input: 'a' input_shape { dim: 1 dim: 2 } layers { name: 'x' }",
      "layer { name: 'input' type: 'Input' top: 'a' input_param { shape { dim: 1 dim: 2 } } } layer { name: 'x' }");
  EXPECT_EQ(
      error_of([] { static_cast<void>(net("name: 'n'\ninput: 'a' input_dim: 1")); }),
      "net.prototxt:2:1: each input needs one input_shape, or four input_dim: there are 1 inputs, 0 input_shape and "
      "1 input_dim");
}

TEST(Upgrade, KeepsSolversFromTrainingTheArraysOfBatchNorm) {
  expect_same(
      "layer { type: 'BatchNorm' param { lr_mult: 1 } param { name: 'x' } param { decay_mult: 0 } }",
      "layer { type: 'BatchNorm' param { lr_mult: 0 decay_mult: 0 } param { name: 'x' lr_mult: 0 decay_mult: 0 } "
      "param { lr_mult: 0 decay_mult: 0 } }");
  // Fewer than three are of the present form.
  const std::string two = "layer { type: 'BatchNorm' param { lr_mult: 1 } param { lr_mult: 1 } }";
  EXPECT_EQ(net(two).messages("layer")[0].messages("param")[0].real("lr_mult"), 1);
}

TEST(Upgrade, KeepsThePlacesOfTheUsersFile) {
  const Message message =
      net("input: 'data'\ninput_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4\n"
          "layers {\n  name: 'conv'\n  type: CONVOLUTION\n  blobs_lr: 1\n  blobs_lr: 2\n"
          "  convolution_param {\n    kernel_size: 3\n  }\n}\n"
          "layers { name: 'data' type: DATA\n  data_param {\n    crop_size: 5 } }\n");
  const std::vector<Message> layers = message.messages("layer");
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_EQ(layers[0].position().text(), "net.prototxt:1:1");
  EXPECT_EQ(layers[0].message("input_param").messages("shape")[0].position("dim", 2).text(), "net.prototxt:2:27");
  EXPECT_EQ(layers[1].position().text(), "net.prototxt:3:1");
  EXPECT_EQ(layers[1].position("name").text(), "net.prototxt:4:3");
  EXPECT_EQ(layers[1].position("type").text(), "net.prototxt:5:3");
  EXPECT_EQ(layers[1].position("param", 1).text(), "net.prototxt:7:3");
  EXPECT_EQ(layers[1].messages("param")[0].position("lr_mult").text(), "net.prototxt:6:3");
  EXPECT_EQ(layers[1].message("convolution_param").position("kernel_size").text(), "net.prototxt:9:5");
  EXPECT_EQ(layers[1].message("convolution_param").position("pad").text(), "net.prototxt:8:3");
  EXPECT_EQ(layers[2].position().text(), "net.prototxt:12:1");
  EXPECT_EQ(layers[2].message("transform_param").position("crop_size").text(), "net.prototxt:14:5");
}

TEST(Upgrade, RefusesTwoFormsInOneNet) {
  EXPECT_EQ(
      error_of([] { static_cast<void>(net("layer { name: 'a' }\nlayers { name: 'b' }")); }),
      "net.prototxt:2:1: the net has `layers`, the old form, and `layer`, the present one; write all in one form");
}

TEST(Upgrade, TurnsTheSolversTypeIntoText) {
  for (const auto& [old, present] : std::vector<std::pair<std::string, std::string>>{{"SGD", "SGD"},
                                                                                     {"NESTEROV", "Nesterov"},
                                                                                     {"ADAGRAD", "AdaGrad"},
                                                                                     {"RMSPROP", "RMSProp"},
                                                                                     {"ADADELTA", "AdaDelta"},
                                                                                     {"ADAM", "Adam"}}) {
    const Message message = solver("base_lr: 1\nsolver_type: " + old);
    EXPECT_EQ(message.text("type"), present);
    EXPECT_FALSE(message.has("solver_type"));
    EXPECT_EQ(message.position("type").text(), "solver.prototxt:2:1");
    EXPECT_EQ(message.old_forms(), Words{"solver_type"});
  }
  EXPECT_EQ(error_of([] { static_cast<void>(solver("type: 'SGD'\nsolver_type: SGD")); }),
            "solver.prototxt:2:1: solver_type is the older form of type; give one of them");
}

TEST(Upgrade, ReachesTheNetsInsideASolver) {
  const Message message = solver(
      "net_param { layers { name: 'a' } } train_net_param { layers { name: 'b' } }\n"
      "test_net_param { layers { name: 'c' } } test_net_param { layers { name: 'd' } }");
  EXPECT_EQ(message.message("net_param").messages("layer")[0].text("name"), "a");
  EXPECT_EQ(message.message("train_net_param").messages("layer")[0].text("name"), "b");
  const Message last = message.messages("test_net_param")[1].messages("layer")[0];
  EXPECT_EQ(last.text("name"), "d");
  EXPECT_EQ(last.position().text(), "solver.prototxt:2:58");
}

class UpgradeFile : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path file(const char* name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) / "upgrade_test";
};

TEST_F(UpgradeFile, RewritesTextAsText) {
  const UpgradedFile upgraded = upgrade_net_file(file("net.prototxt", "# comment\nlayers { name: 'a' type: RELU }"));
  EXPECT_TRUE(upgraded.is_text);
  EXPECT_EQ(upgraded.bytes, "layer {\n  name: \"a\"\n  type: \"ReLU\"\n}\n");
  EXPECT_EQ(upgraded.old_forms.size(), 1u);
  EXPECT_TRUE(upgrade_net_file(file("again.prototxt", upgraded.bytes)).old_forms.empty());
}

TEST_F(UpgradeFile, RewritesBytesAsBytes) {
  // NetParameter {1: "n", 2: V1LayerParameter {4: "a", 5: 18 (RELU), 6: BlobProto {5: [1.0f], 7: {1: [1]}}}}, and as it
  // is with the fields of LayerParameter.
  const std::string old = bytes_of("0A 01 6E  12 12  22 01 61  28 12  32 0B  2A 04 00 00 80 3F  3A 03 0A 01 01");
  const std::string present =
      bytes_of("0A 01 6E  A2 06 16  0A 01 61  12 04 52 65 4C 55  3A 0B  2A 04 00 00 80 3F  3A 03 0A 01 01");
  const UpgradedFile upgraded = upgrade_net_file(file("net.caffemodel", old));
  EXPECT_FALSE(upgraded.is_text);
  EXPECT_EQ(upgraded.bytes, present);
  EXPECT_EQ(upgrade_net_file(file("again.caffemodel", present)).bytes, present);
}

TEST_F(UpgradeFile, RewritesSolvers) {
  const UpgradedFile upgraded = upgrade_solver_file(file("solver.prototxt", "base_lr: 0.01 solver_type: ADAM"));
  EXPECT_EQ(upgraded.bytes, "base_lr: 0.01\ntype: \"Adam\"\n");
}

TEST_F(UpgradeFile, RefusesOtherFiles) {
  const std::filesystem::path damaged = file("damaged", bytes_of("12 05 22 01"));
  EXPECT_NE(error_of([&] { static_cast<void>(upgrade_net_file(damaged)); }).find("is not a net in text or binary form"),
            std::string::npos);
  const std::filesystem::path empty = file("empty", "");
  EXPECT_NE(error_of([&] { static_cast<void>(upgrade_net_file(empty)); }).find("is empty"), std::string::npos);
  EXPECT_NE(error_of([&] { static_cast<void>(upgrade_net_file(folder_ / "none")); }).find("cannot read"),
            std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe::proto
