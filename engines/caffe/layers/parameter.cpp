// Parameter: a trained array as a blob, for other layers to compute with. It starts at zero; values come from a model,
// or from a layer that it shares its array with.
#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class ParameterLayer final : public Layer {
 public:
  explicit ParameterLayer(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 0}),
        shape_(message().message("parameter_param").message("shape").integers("dim")) {
    const proto::Message shape = message().message("parameter_param").message("shape");
    for (std::size_t i = 0; i < shape_.size(); ++i) {
      if (shape_[i] < 1) {
        fail_at(shape.position("dim", i), base::concat("has dim ", shape_[i], "; it must be at least 1"));
      }
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return {shape_}; }

  // A view, so that the blob is not the array itself.
  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>&) override {
    return {array(0).view(shape_)};
  }

 private:
  void declare_parameters(const std::vector<Shape>&) override { add_parameter("value", shape_, Filler{}); }

  Shape shape_;
};

}  // namespace

std::unique_ptr<Layer> make_parameter(const LayerConfig& config) {
  return std::make_unique<ParameterLayer>(config);
}

}  // namespace poseidon::caffe
