// InnerProduct: y = x Wᵀ + b over vectors x, everything from `axis` on being one vector.
//
// Its weight's gradient is Uᵀ V of output errors and inputs, which is why it may travel as factors: then `linear` of
// the exchange takes the place of ATen's.
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

#include <utility>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {
namespace {

class InnerProduct final : public Layer {
 public:
  explicit InnerProduct(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("inner_product_param")),
        outputs_(settings_.integer("num_output")),
        has_bias_(settings_.flag("bias_term")),
        transposed_(settings_.flag("transpose")) {
    if (outputs_ < 1) fail_at(settings_.position("num_output"), "needs num_output, at least 1");
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    auto [top, inputs] = split(bottoms[0]);
    if (!parameters().empty() && inputs != inputs_of(parameters()[0].shape)) {
      fail(base::concat("has a weight of ", base::readable_shape(parameters()[0].shape), " for vectors of ",
                        inputs_of(parameters()[0].shape), "; ", describe_bottom(0, bottoms[0])));
    }
    top.push_back(outputs_);
    return {top};
  }

  // addmm keeps its factors, not its result.
  bool keeps_tops() const override { return false; }

  std::size_t factor_rows() const override { return transposed_ ? 0 : rows_; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& bottom = bottoms[0];
    const std::vector<Shape> tops = top_shapes({bottom.sizes().vec()});
    const at::Tensor weight = array(0);
    const at::Tensor bias = has_bias_ ? array(1) : at::Tensor();
    const at::Tensor x = bottom.dim() == 2 ? bottom : bottom.reshape({-1, inputs_of(weight.sizes())});
    const at::Tensor y = product(context, x, weight, bias);
    return {y.sizes() == tops[0] ? y : y.view(tops[0])};
  }

 private:
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    const auto [leading, inputs] = split(bottoms[0]);
    rows_ = static_cast<std::size_t>(elements_of(leading));
    add_parameter("weight", transposed_ ? Shape{inputs, outputs_} : Shape{outputs_, inputs},
                  read_filler(settings_.message("weight_filler")));
    if (has_bias_) add_parameter("bias", {outputs_}, read_filler(settings_.message("bias_filler")));
  }

  at::Tensor product(const ForwardContext& context, const at::Tensor& x, const at::Tensor& weight,
                     const at::Tensor& bias) const {
    if (transposed_) {
      const at::Tensor y = at::matmul(x, weight);
      return bias.defined() ? y.add_(bias) : y;
    }
    if (context.exchange == nullptr) return at::linear(x, weight, bias);
    // A bias that is not trained stays out of the exchange: factors would bring back a gradient for it.
    if (bias.defined() && !bias.requires_grad())
      return context.exchange->linear(context.layer, x, weight, {}).add_(bias);
    return context.exchange->linear(context.layer, x, weight, bias);
  }

  // The axes that count vectors, and how long a vector is.
  std::pair<Shape, std::int64_t> split(const Shape& bottom) const {
    const auto axis = bottom.begin() + static_cast<std::ptrdiff_t>(canonical_axis(settings_.integer("axis"), bottom));
    return {Shape(bottom.begin(), axis), elements_of(Shape(axis, bottom.end()))};
  }
  std::int64_t inputs_of(at::IntArrayRef weight) const { return transposed_ ? weight[0] : weight[1]; }

  proto::Message settings_;
  std::int64_t outputs_;
  bool has_bias_;
  bool transposed_;
  std::size_t rows_ = 0;
};

}  // namespace

std::unique_ptr<Layer> make_inner_product(const LayerConfig& config) {
  return std::make_unique<InnerProduct>(config);
}

}  // namespace poseidon::caffe
