// Bias and Scale: a sum or a product with an operand of fewer axes, which lie along the bottom's from `axis` on. The
// operand is the second bottom, or a trained array where there is none.
#include <ATen/ops/mul.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// What the two have in common: where the operand lies.
class AlongAxes : public Layer {
 public:
  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const final {
    const Shape& bottom = bottoms[0];
    const Shape operand = operand_shape(bottoms);
    const std::size_t first = first_axis(operand, bottom);
    const bool fits = first + operand.size() <= bottom.size() &&
                      std::equal(operand.begin(), operand.end(), bottom.begin() + static_cast<std::ptrdiff_t>(first));
    if (!fits) {
      const std::string what = bottoms.size() == 2 ? base::concat("\"", this->bottoms()[1], "\"")
                                                   : base::concat("its array \"", parameters()[0].name, "\"");
      fail(base::concat("cannot lay ", what, ", which is ", base::readable_shape(operand),
                        ", along its first bottom from axis ", first, " on; ", describe_bottom(0, bottom)));
    }
    return {bottom};
  }

 protected:
  AlongAxes(const LayerConfig& config, std::string_view settings)
      : Layer(config, {.bottoms_max = 2}), settings_(message().message(settings)) {}

  const proto::Message& settings() const { return settings_; }

  Shape operand_shape(const std::vector<Shape>& bottoms) const {
    if (bottoms.size() == 2) return bottoms[1];
    return parameters().empty() ? wanted_shape(bottoms[0]) : parameters()[0].shape;
  }

  // The operand with axes of one element behind its own, so that it spreads over x.
  at::Tensor spread(const at::Tensor& operand, const at::Tensor& x) const {
    Shape shape = operand.sizes().vec();
    if (shape.empty()) return operand;
    shape.resize(static_cast<std::size_t>(x.dim()) - first_axis(shape, x.sizes().vec()), 1);
    return operand.reshape(shape);
  }

 private:
  // Of the trained array, as the settings say it.
  Shape wanted_shape(const Shape& bottom) const {
    const std::int64_t axes = settings_.integer("num_axes");
    if (axes == 0) return {};
    const std::size_t first = canonical_axis(settings_.integer("axis"), bottom);
    const auto rest = static_cast<std::int64_t>(bottom.size() - first);
    if (axes < -1 || axes > rest) {
      fail_at(settings_.position("num_axes"),
              base::concat("has num_axes ", axes, "; from axis ", first, " on there are ", rest,
                           ", which -1 stands for; ", describe_bottom(0, bottom)));
    }
    const auto begin = bottom.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + (axes == -1 ? rest : axes)};
  }

  // A single number lies anywhere, whatever `axis` says.
  std::size_t first_axis(const Shape& operand, const Shape& bottom) const {
    return operand.empty() ? 0 : canonical_axis(settings_.integer("axis"), bottom);
  }

  proto::Message settings_;
};

class Bias final : public AlongAxes {
 public:
  explicit Bias(const LayerConfig& config) : AlongAxes(config, "bias_param") {}

  // A sum needs neither operands nor result.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    at::Tensor x = bottoms[0];
    const at::Tensor bias = spread(bottoms.size() == 2 ? bottoms[1] : array(0), x);
    return {context.overwrite_bottom ? x.add_(bias) : x.add(bias)};
  }

 private:
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    if (bottoms.size() == 1) add_parameter("bias", operand_shape(bottoms), read_filler(settings().message("filler")));
  }
};

// With `bias_term` it then adds a trained array of the operand's shape.
class Scale final : public AlongAxes {
 public:
  explicit Scale(const LayerConfig& config)
      : AlongAxes(config, "scale_param"), has_bias_(settings().flag("bias_term")) {}

  // A product keeps its factors.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& x = bottoms[0];
    const at::Tensor y = at::mul(x, spread(bottoms.size() == 2 ? bottoms[1] : array(0), x));
    return {has_bias_ ? y.add_(spread(array(parameters().size() - 1), x)) : y};
  }

 private:
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    const Shape shape = operand_shape(bottoms);
    const Filler ones{.value = 1};
    if (bottoms.size() == 1) {
      add_parameter("scale", shape, settings().has("filler") ? read_filler(settings().message("filler")) : ones);
    }
    if (has_bias_) add_parameter("bias", shape, read_filler(settings().message("bias_filler")));
  }

  bool has_bias_;
};

}  // namespace

std::unique_ptr<Layer> make_bias(const LayerConfig& config) {
  return std::make_unique<Bias>(config);
}
std::unique_ptr<Layer> make_scale(const LayerConfig& config) {
  return std::make_unique<Scale>(config);
}

}  // namespace poseidon::caffe
