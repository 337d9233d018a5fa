// Functions of single elements, with the derivatives of Caffe at their kinks: AbsVal, BNLL, Clip, ELU, PReLU, Sigmoid,
// Swish, TanH and Threshold.
#include <ATen/ops/abs.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/prelu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/tanh.h>

#include "base/text.h"
#include "engines/caffe/layers/elementwise.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// |x|, whose derivative at zero is zero.
class AbsVal final : public Elementwise {
 public:
  using Elementwise::Elementwise;

 private:
  at::Tensor apply(at::Tensor x, bool) const override { return at::abs(x); }
};

// log(1 + eˣ), the binomial normal log likelihood.
class Bnll final : public Elementwise {
 public:
  using Elementwise::Elementwise;

 private:
  // From 50 on, where Caffe holds the exponent in its derivative too, the result is x to the last bit.
  at::Tensor apply(at::Tensor x, bool) const override { return at::softplus(x, /*beta=*/1, /*threshold=*/50); }
};

// min(max(x, min), max); the limits themselves still pass their gradient on.
class Clip final : public Elementwise {
 public:
  explicit Clip(const LayerConfig& config)
      : Elementwise(config),
        min_(message().message("clip_param").real("min")),
        max_(message().message("clip_param").real("max")) {
    const proto::Message settings = message().message("clip_param");
    if (!settings.has("min") || !settings.has("max")) {
      fail_at(settings.position(), "needs both limits: clip_param { min: 0 max: 1 }");
    }
    if (min_ > max_) {
      fail_at(settings.position("min"), base::concat("has min ", min_, " above max ", max_));
    }
  }

 private:
  at::Tensor apply(at::Tensor x, bool) const override { return at::clamp(x, min_, max_); }

  double min_;
  double max_;
};

// x where it is positive, else alpha (eˣ - 1).
class Elu final : public Elementwise {
 public:
  explicit Elu(const LayerConfig& config) : Elementwise(config), alpha_(message().message("elu_param").real("alpha")) {}

 private:
  at::Tensor apply(at::Tensor x, bool) const override { return at::elu(x, alpha_); }

  double alpha_;
};

// max(x, 0) + a min(x, 0) with a trained slope `a` for each channel, or one for all (He et al., 2015).
class PRelu final : public Layer {
 public:
  explicit PRelu(const LayerConfig& config)
      : Layer(config, {}), settings_(message().message("prelu_param")), one_slope_(settings_.flag("channel_shared")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    if (bottom.size() < 2)
      fail(base::concat("wants at least 2 axes, channels on axis 1; ", describe_bottom(0, bottom)));
    if (!one_slope_ && !parameters().empty() && parameters()[0].shape[0] != bottom[1]) {
      fail(base::concat("has slopes for ", parameters()[0].shape[0], " channels; ", describe_bottom(0, bottom)));
    }
    return bottoms;
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    return {at::prelu(bottoms[0], array(0))};
  }

 private:
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    // Caffe's initial slope, also that of the paper.
    const Filler quarter{.value = 0.25};
    add_parameter("slope", one_slope_ ? Shape{} : Shape{bottoms[0][1]},
                  settings_.has("filler") ? read_filler(settings_.message("filler")) : quarter);
  }

  proto::Message settings_;
  bool one_slope_;
};

class Sigmoid final : public Elementwise {
 public:
  using Elementwise::Elementwise;

 private:
  // The derivative follows from the result.
  at::Tensor apply(at::Tensor x, bool in_place) const override { return in_place ? at::sigmoid_(x) : at::sigmoid(x); }
};

// x / (1 + e^(-beta x)).
class Swish final : public Elementwise {
 public:
  explicit Swish(const LayerConfig& config)
      : Elementwise(config), beta_(message().message("swish_param").real("beta")) {}

 private:
  at::Tensor apply(at::Tensor x, bool) const override { return x * at::sigmoid(beta_ == 1 ? x : x * beta_); }

  double beta_;
};

class TanH final : public Elementwise {
 public:
  using Elementwise::Elementwise;

 private:
  at::Tensor apply(at::Tensor x, bool in_place) const override { return in_place ? at::tanh_(x) : at::tanh(x); }
};

// 1 where x is above the threshold, else 0. Caffe has no gradient for it.
class Threshold final : public Elementwise {
 public:
  explicit Threshold(const LayerConfig& config)
      : Elementwise(config), threshold_(message().message("threshold_param").real("threshold")) {}

  bool differentiable(std::size_t) const override { return false; }

 private:
  at::Tensor apply(at::Tensor x, bool) const override { return at::gt(x, threshold_).to(x.scalar_type()); }

  double threshold_;
};

}  // namespace

std::unique_ptr<Layer> make_abs_val(const LayerConfig& config) {
  return std::make_unique<AbsVal>(config);
}
std::unique_ptr<Layer> make_bnll(const LayerConfig& config) {
  return std::make_unique<Bnll>(config);
}
std::unique_ptr<Layer> make_clip(const LayerConfig& config) {
  return std::make_unique<Clip>(config);
}
std::unique_ptr<Layer> make_elu(const LayerConfig& config) {
  return std::make_unique<Elu>(config);
}
std::unique_ptr<Layer> make_prelu(const LayerConfig& config) {
  return std::make_unique<PRelu>(config);
}
std::unique_ptr<Layer> make_sigmoid(const LayerConfig& config) {
  return std::make_unique<Sigmoid>(config);
}
std::unique_ptr<Layer> make_swish(const LayerConfig& config) {
  return std::make_unique<Swish>(config);
}
std::unique_ptr<Layer> make_tanh(const LayerConfig& config) {
  return std::make_unique<TanH>(config);
}
std::unique_ptr<Layer> make_threshold(const LayerConfig& config) {
  return std::make_unique<Threshold>(config);
}

}  // namespace poseidon::caffe
