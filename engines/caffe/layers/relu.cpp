// ReLU: max(x, 0) + negative_slope · min(x, 0).
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/relu.h>

#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Relu final : public Layer {
 public:
  explicit Relu(const LayerConfig& config)
      : Layer(config, {}), negative_slope_(message().message("relu_param").real("negative_slope")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override { return bottoms; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    at::Tensor x = bottoms[0];
    // In its own memory ReLU finds the sign of its input in its output, which a slope of zero or more preserves.
    const bool in_place = context.overwrite_bottom && negative_slope_ >= 0;
    if (negative_slope_ == 0) return {in_place ? at::relu_(x) : at::relu(x)};
    return {in_place ? at::leaky_relu_(x, negative_slope_) : at::leaky_relu(x, negative_slope_)};
  }

 private:
  double negative_slope_;
};

}  // namespace

std::unique_ptr<Layer> make_relu(const LayerConfig& config) {
  return std::make_unique<Relu>(config);
}

}  // namespace poseidon::caffe
