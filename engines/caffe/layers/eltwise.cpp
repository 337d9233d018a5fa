// Eltwise: product, weighted sum or maximum of bottoms of one shape, element by element.
//
// The gradient of a maximum goes to one bottom. Which one when several are equal is what Caffe's loops on the CPU make
// of it: the second rather than the first, and the earlier of all others.
//
// The gradient of a product is always that of the other factors' product; Caffe's `stable_prod_grad: false` divides the
// result by the factor instead, which is the same number but for rounding, and none where the factor is zero.
#include <ATen/ops/gt.h>
#include <ATen/ops/where.h>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Eltwise final : public Layer {
 public:
  explicit Eltwise(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = BlobCounts::kAny}),
        operation_(message().message("eltwise_param").choice("operation")),
        coefficients_(message().message("eltwise_param").reals("coeff")) {
    const proto::Message settings = message().message("eltwise_param");
    if (coefficients_.empty()) {
      coefficients_.assign(this->bottoms().size(), 1);
      return;
    }
    if (coefficients_.size() != this->bottoms().size()) {
      fail_at(settings.position("coeff"), base::concat("has ", coefficients_.size(), " coeff for ",
                                                       this->bottoms().size(), " bottoms; give one each, or none"));
    }
    if (operation_ == "PROD") fail_at(settings.position("coeff"), "has coeff, which only a SUM takes");
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    for (std::size_t i = 1; i < bottoms.size(); ++i) {
      if (bottoms[i] == bottoms[0]) continue;
      fail(base::concat("wants bottoms of one shape; ", describe_bottom(0, bottoms[0]), ", and ",
                        describe_bottom(i, bottoms[i])));
    }
    return {bottoms[0]};
  }

  // What autograd keeps are the operands.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    if (operation_ == "PROD") return {product(bottoms)};
    if (operation_ == "MAX") return {maximum(bottoms)};
    return {sum(bottoms)};
  }

 private:
  static at::Tensor product(const std::vector<at::Tensor>& bottoms) {
    at::Tensor result = bottoms[0];
    for (std::size_t i = 1; i < bottoms.size(); ++i) result = result * bottoms[i];
    return result;
  }

  at::Tensor sum(const std::vector<at::Tensor>& bottoms) const {
    at::Tensor result = coefficients_[0] == 1 ? bottoms[0] : bottoms[0] * coefficients_[0];
    for (std::size_t i = 1; i < bottoms.size(); ++i) result = result.add(bottoms[i], coefficients_[i]);
    return result;
  }

  static at::Tensor maximum(const std::vector<at::Tensor>& bottoms) {
    at::Tensor result = at::where(at::gt(bottoms[0], bottoms[1]), bottoms[0], bottoms[1]);
    for (std::size_t i = 2; i < bottoms.size(); ++i) result = at::where(at::gt(bottoms[i], result), bottoms[i], result);
    return result;
  }

  std::string operation_;
  std::vector<double> coefficients_;  // per bottom
};

}  // namespace

std::unique_ptr<Layer> make_eltwise(const LayerConfig& config) {
  return std::make_unique<Eltwise>(config);
}

}  // namespace poseidon::caffe
