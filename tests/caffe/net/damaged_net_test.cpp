// Prototxts with something wrong in them: always a sentence that names the place or the layer, whatever is wrong.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <exception>
#include <fstream>
#include <random>
#include <string>
#include <string_view>

#include "caffe/net/damaged_text.h"
#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

// Many types of layers with many settings; a pass takes a millisecond.
constexpr std::string_view kNet = R"(name: 'many'
layer { name: 'data' type: 'DummyData' top: 'data' top: 'label' dummy_data_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 }
  data_filler { type: 'gaussian' std: 1 mean: 0.5 } data_filler { type: 'constant' value: 1 } } }
layer { name: 'conv1' type: 'Convolution' bottom: 'data' top: 'conv1' param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 1 group: 1 dilation: 1 weight_filler { type: 'xavier' } bias_filler { type: 'constant' value: 0.1 } } }
layer { name: 'bn1' type: 'BatchNorm' bottom: 'conv1' top: 'conv1' batch_norm_param { moving_average_fraction: 0.9 eps: 0.001 } }
layer { name: 'scale1' type: 'Scale' bottom: 'conv1' top: 'conv1' scale_param { axis: 1 num_axes: 1 bias_term: true filler { value: 1 } } }
layer { name: 'relu1' type: 'ReLU' bottom: 'conv1' top: 'conv1' relu_param { negative_slope: 0.1 } }
layer { name: 'lrn1' type: 'LRN' bottom: 'conv1' top: 'lrn1' lrn_param { local_size: 3 alpha: 0.0001 beta: 0.75 norm_region: WITHIN_CHANNEL } }
layer { name: 'pool1' type: 'Pooling' bottom: 'lrn1' top: 'pool1' pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 } }
layer { name: 'slice' type: 'Slice' bottom: 'pool1' top: 'a' top: 'b' slice_param { axis: 1 slice_point: 2 } }
layer { name: 'power' type: 'Power' bottom: 'a' top: 'c' power_param { power: 2 scale: 0.5 shift: 1 } }
layer { name: 'concat' type: 'Concat' bottom: 'b' bottom: 'c' top: 'd' concat_param { axis: 1 } }
layer { name: 'deconv' type: 'Deconvolution' bottom: 'd' top: 'e' convolution_param { num_output: 2 kernel_size: 2 stride: 2 weight_filler { type: 'bilinear' } } }
layer { name: 'crop' type: 'Crop' bottom: 'e' bottom: 'd' top: 'f' crop_param { axis: 2 offset: 1 offset: 2 } }
layer { name: 'eltwise' type: 'Eltwise' bottom: 'f' bottom: 'b' top: 'g' eltwise_param { operation: SUM coeff: 1 coeff: -0.5 } }
layer { name: 'reshape' type: 'Reshape' bottom: 'g' top: 'h' reshape_param { shape { dim: 0 dim: -1 } axis: 0 num_axes: -1 } }
layer { name: 'tile' type: 'Tile' bottom: 'h' top: 'i' tile_param { axis: 1 tiles: 2 } }
layer { name: 'drop' type: 'Dropout' bottom: 'i' top: 'i' dropout_param { dropout_ratio: 0.5 } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'i' top: 'ip' inner_product_param { num_output: 5 axis: 1 weight_filler { type: 'msra' variance_norm: AVERAGE } } }
layer { name: 'embed' type: 'Embed' bottom: 'label' top: 'embed' embed_param { num_output: 5 input_dim: 3 weight_filler { type: 'uniform' min: -1 max: 1 } } }
layer { name: 'both' type: 'Eltwise' bottom: 'ip' bottom: 'embed' top: 'both' eltwise_param { operation: PROD } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'both' bottom: 'label' top: 'loss' loss_weight: 1 loss_param { ignore_label: 2 normalization: VALID } }
layer { name: 'accuracy' type: 'Accuracy' bottom: 'both' bottom: 'label' top: 'accuracy' include { phase: TEST } accuracy_param { top_k: 2 } }
)";

// What a pass of the net says, or nothing.
std::string error_of_pass(const std::string& text) {
  try {
    Net net = make_net(text);
    net.forward({.iteration = 0, .first_record = 0, .record_stride = net.records_per_batch()});
    if (net.has_loss() && !net.parameters().empty()) net.backward();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

class MemoryLimit {
 public:
  explicit MemoryLimit(rlim_t more) {
    ::getrlimit(RLIMIT_AS, &before_);
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limit{static_cast<rlim_t>(pages) * 4096 + more, before_.rlim_max};
    ::setrlimit(RLIMIT_AS, &limit);
  }
  ~MemoryLimit() { ::setrlimit(RLIMIT_AS, &before_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  rlimit before_{};
};

TEST(DamagedNet, IsRefusedWithTheNameOfAPlaceOrALayer) {
  ASSERT_EQ(error_of_pass(std::string(kNet)), "");
  const MemoryLimit limit(rlim_t{2} << 30);
  int refused = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    std::string text(kNet);
    for (unsigned i = 0; i <= random() % 3; ++i) testing_data::damage(text, random);
    const std::string error = error_of_pass(text);
    if (error.empty()) continue;
    ++refused;
    EXPECT_TRUE(error.starts_with("net.prototxt") || error.starts_with("layer \"")) << "seed " << seed << ": " << error << "\n" << text;
  }
  EXPECT_GT(refused, 1500);
  EXPECT_LT(refused, 3000);  // some damage is another net
}

}  // namespace
}  // namespace poseidon::caffe
