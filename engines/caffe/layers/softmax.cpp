// Softmax along an axis.
#include <ATen/ops/softmax.h>

#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Softmax final : public Layer {
 public:
  explicit Softmax(const LayerConfig& config)
      : Layer(config, {}), axis_(message().message("softmax_param").integer("axis")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    canonical_axis(axis_, bottoms[0]);
    return bottoms;
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    return {at::softmax(bottoms[0], axis_)};
  }

 private:
  std::int64_t axis_;
};

}  // namespace

std::unique_ptr<Layer> make_softmax(const LayerConfig& config) {
  return std::make_unique<Softmax>(config);
}

}  // namespace poseidon::caffe
