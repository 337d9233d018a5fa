#include "engines/caffe/proto/upgrade_v0.h"

#include <gtest/gtest.h>

#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/message.h"
#include "tests/caffe/proto/bytes.h"

namespace poseidon::caffe::proto {
namespace {

using testing_bytes::error_of;

Message net(const std::string& text) {
  return parse_text(text, "NetParameter", "net.prototxt");
}
void expect_same(const std::string& old, const std::string& present) {
  EXPECT_EQ(net(old).as_text(), net(present).as_text());
}
std::string error(const std::string& text) {
  return error_of([&] { static_cast<void>(net(text)); });
}

// A net as the first examples of Caffe had it.
TEST(UpgradeV0, TurnsANetOfTheFirstFormIntoThePresentOne) {
  expect_same(R"(
      name: 'CaffeNet'
      layers { layer { name: 'data' type: 'data' source: '/db' meanfile: '/mean' batchsize: 256 cropsize: 227 mirror: true
                       scale: 0.5 rand_skip: 7 } top: 'data' top: 'label' }
      layers { layer { name: 'conv1' type: 'conv' num_output: 96 kernelsize: 11 stride: 4 group: 2 biasterm: false
                       weight_filler { type: 'gaussian' std: 0.01 } bias_filler { type: 'constant' value: 0. } blobs_lr: 1.
                       blobs_lr: 2. weight_decay: 1. weight_decay: 0. } bottom: 'data' top: 'conv1' }
      layers { layer { name: 'relu1' type: 'relu' } bottom: 'conv1' top: 'conv1' }
      layers { layer { name: 'pool1' type: 'pool' pool: AVE kernelsize: 3 stride: 2 pad: 1 } bottom: 'conv1' top: 'pool1' }
      layers { layer { name: 'norm1' type: 'lrn' local_size: 3 alpha: 0.0001 beta: 0.5 k: 2 } bottom: 'pool1' top: 'norm1' }
      layers { layer { name: 'fc8' type: 'innerproduct' num_output: 1000 biasterm: true weight_filler { type: 'xavier' } }
               bottom: 'norm1' top: 'fc8' }
      layers { layer { name: 'drop' type: 'dropout' dropout_ratio: 0.25 } bottom: 'fc8' top: 'fc8' }
      layers { layer { name: 'loss' type: 'softmax_loss' } bottom: 'fc8' bottom: 'label' })",
              R"(
      name: 'CaffeNet'
      layer { name: 'data' type: 'Data' top: 'data' top: 'label' data_param { source: '/db' batch_size: 256 rand_skip: 7 }
              transform_param { mean_file: '/mean' crop_size: 227 mirror: true scale: 0.5 } }
      layer { name: 'conv1' type: 'Convolution' bottom: 'data' top: 'conv1' param { lr_mult: 1 decay_mult: 1 }
              param { lr_mult: 2 decay_mult: 0 }
              convolution_param { num_output: 96 kernel_size: 11 stride: 4 group: 2 bias_term: false
                                  weight_filler { type: 'gaussian' std: 0.01 } bias_filler { type: 'constant' value: 0 } } }
      layer { name: 'relu1' type: 'ReLU' bottom: 'conv1' top: 'conv1' }
      layer { name: 'pool1' type: 'Pooling' bottom: 'conv1' top: 'pool1'
              pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
      layer { name: 'norm1' type: 'LRN' bottom: 'pool1' top: 'norm1'
              lrn_param { local_size: 3 alpha: 0.0001 beta: 0.5 k: 2 } }
      layer { name: 'fc8' type: 'InnerProduct' bottom: 'norm1' top: 'fc8'
              inner_product_param { num_output: 1000 bias_term: true weight_filler { type: 'xavier' } } }
      layer { name: 'drop' type: 'Dropout' bottom: 'fc8' top: 'fc8' dropout_param { dropout_ratio: 0.25 } }
      layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc8' bottom: 'label' })");
  EXPECT_EQ(net("layers { layer { type: 'relu' } }").old_forms(),
            std::vector<std::string>{"layers of the form `layers { layer { type: \"conv\" } }`"});
}

TEST(UpgradeV0, MovesTheSettingsOfTheOtherTypes) {
  const auto expect = [](const std::string& old, const std::string& present) {
    expect_same("layers { layer { " + old + " } }", "layer { " + present + " }");
  };
  expect("type: 'images' source: 's' batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 4 new_width: 5",
         "type: 'ImageData' image_data_param { source: 's' batch_size: 2 rand_skip: 3 shuffle: true new_height: 4 "
         "new_width: 5 }");
  expect(
      "type: 'window_data' source: 's' batchsize: 2 det_fg_threshold: 0.6 det_bg_threshold: 0.4 det_fg_fraction: 0.3 "
      "det_context_pad: 16 det_crop_mode: 'square'",
      "type: 'WindowData' window_data_param { source: 's' batch_size: 2 fg_threshold: 0.6 bg_threshold: 0.4 "
      "fg_fraction: "
      "0.3 context_pad: 16 crop_mode: 'square' }");
  expect("type: 'hdf5_data' source: 's' batchsize: 2",
         "type: 'HDF5Data' hdf5_data_param { source: 's' batch_size: 2 }");
  expect("type: 'hdf5_output' hdf5_output_param { file_name: 'f' }",
         "type: 'HDF5Output' hdf5_output_param { file_name: 'f' }");
  expect("type: 'infogain_loss' source: 's'", "type: 'InfogainLoss' infogain_loss_param { source: 's' }");
  expect("type: 'concat' concat_dim: 0", "type: 'Concat' concat_param { concat_dim: 0 }");
  expect("type: 'conv' pad: 2", "type: 'Convolution' convolution_param { pad: 2 }");
  expect("type: 'pool' pool: STOCHASTIC", "type: 'Pooling' pooling_param { pool: STOCHASTIC }");
}

TEST(UpgradeV0, KnowsEveryType) {
  for (const auto& [old, present] : std::vector<std::pair<std::string, std::string>>{
           {"accuracy", "Accuracy"},
           {"bnll", "BNLL"},
           {"concat", "Concat"},
           {"conv", "Convolution"},
           {"data", "Data"},
           {"dropout", "Dropout"},
           {"euclidean_loss", "EuclideanLoss"},
           {"flatten", "Flatten"},
           {"hdf5_data", "HDF5Data"},
           {"hdf5_output", "HDF5Output"},
           {"im2col", "Im2col"},
           {"images", "ImageData"},
           {"infogain_loss", "InfogainLoss"},
           {"innerproduct", "InnerProduct"},
           {"lrn", "LRN"},
           {"multinomial_logistic_loss", "MultinomialLogisticLoss"},
           {"pool", "Pooling"},
           {"relu", "ReLU"},
           {"sigmoid", "Sigmoid"},
           {"softmax", "Softmax"},
           {"softmax_loss", "SoftmaxWithLoss"},
           {"split", "Split"},
           {"tanh", "TanH"},
           {"window_data", "WindowData"},
       }) {
    EXPECT_EQ(net("layers { layer { type: '" + old + "' } }").messages("layer")[0].text("type"), present);
  }
  EXPECT_EQ(
      error("layers {\n  layer { name: 'a' type: 'cnv' } }"),
      "net.prototxt:2:21: there is no type \"cnv\" among the layers of the oldest form (`layers { layer { ... } }`); "
      "did you mean conv?");
}

TEST(UpgradeV0, FoldsPaddingIntoTheLayersThatReadIt) {
  expect_same(
      "layers { layer { name: 'pool1' type: 'pool' } bottom: 'data' top: 'pool1' }"
      "layers { layer { name: 'pad2' type: 'padding' pad: 2 } bottom: 'pool1' top: 'pad2' }"
      "layers { layer { name: 'conv2' type: 'conv' kernelsize: 5 } bottom: 'pad2' top: 'conv2' }"
      "layers { layer { name: 'pool2' type: 'pool' kernelsize: 3 } bottom: 'pad2' top: 'pool2' }",
      "layer { name: 'pool1' type: 'Pooling' bottom: 'data' top: 'pool1' }"
      "layer { name: 'conv2' type: 'Convolution' bottom: 'pool1' top: 'conv2' convolution_param { kernel_size: 5 "
      "pad: 2 } }"
      "layer { name: 'pool2' type: 'Pooling' bottom: 'pool1' top: 'pool2' pooling_param { kernel_size: 3 pad: 2 } }");
}

TEST(UpgradeV0, RefusesPaddingThatNobodyCouldFold) {
  const std::string pad = "layers { layer { name: 'pad' type: 'padding' pad: 1 } bottom: 'x' top: 'y' }\n";
  EXPECT_EQ(
      error(pad + "layers { layer { name: 'r' type: 'relu' } bottom: 'y' top: 'y' }"),
      "net.prototxt:2:28: layer \"r\" (relu) reads the padding layer \"pad\", which only a conv or pool layer of one "
      "bottom can");
  EXPECT_EQ(error("layers { layer { name: 'pad' type: 'padding' } bottom: 'x' top: 'y' top: 'z' }\n"
                  "layers { layer { name: 'c' type: 'conv' } bottom: 'y' top: 'c' }"),
            "net.prototxt:1:30: layer \"pad\" (padding) has 1 bottoms and 2 tops; padding has one of each");
}

TEST(UpgradeV0, LeavesOutWhatTheTypeDoesNotHave) {
  expect_same("layers { layer { name: 'r' type: 'relu' num_output: 3 new_num: 2 } }",
              "layer { name: 'r' type: 'ReLU' }");
}

TEST(UpgradeV0, KeepsThePlacesOfTheUsersFile) {
  const Message message =
      net("layers { layer { name: 'pad' type: 'padding'\n pad: 1 } bottom: 'x' top: 'y' }\n"
          "layers {\n layer {\n  name: 'c'\n  type: 'conv'\n  kernelsize: 3\n  weight_filler {\n   std: 1 } }\n "
          "bottom: 'y' }");
  const Message layer = message.messages("layer")[0];
  EXPECT_EQ(layer.position().text(), "net.prototxt:3:1");
  EXPECT_EQ(layer.position("name").text(), "net.prototxt:5:3");
  EXPECT_EQ(layer.position("type").text(), "net.prototxt:6:3");
  const Message settings = layer.message("convolution_param");
  EXPECT_EQ(settings.position("num_output").text(), "net.prototxt:4:2") << "where the layer's settings begin";
  EXPECT_EQ(settings.position("kernel_size").text(), "net.prototxt:7:3");
  EXPECT_EQ(settings.position("pad").text(), "net.prototxt:2:2");
  EXPECT_EQ(settings.message("weight_filler").position("std").text(), "net.prototxt:9:4");
}

}  // namespace
}  // namespace poseidon::caffe::proto
