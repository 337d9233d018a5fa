// Powers and their inverse: Exp, Log and Power.
#include <ATen/ops/exp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log.h>
#include <ATen/ops/pow.h>

#include <cmath>

#include "base/text.h"
#include "engines/caffe/layers/elementwise.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// The logarithm of an exp_param's or log_param's base, where -1 stands for e.
double log_of_base(const Layer& layer, const proto::Message& settings) {
  const double base = settings.real("base");
  if (base == -1) return 1;
  if (base <= 0) {
    layer.fail_at(settings.position("base"), base::concat("has base ", base, "; it must be above 0, or -1 for e"));
  }
  return std::log(base);
}

// scale x + shift, without the steps that change nothing.
at::Tensor linear(const at::Tensor& x, double scale, double shift) {
  const at::Tensor scaled = scale == 1 ? x : x * scale;
  return shift == 0 ? scaled : scaled + shift;
}

// base^(shift + scale x), computed as base^shift e^(ln(base) scale x).
class Exp final : public Elementwise {
 public:
  explicit Exp(const LayerConfig& config) : Elementwise(config) {
    const proto::Message settings = message().message("exp_param");
    const double log_base = log_of_base(*this, settings);
    inner_scale_ = log_base * settings.real("scale");
    outer_scale_ = std::exp(log_base * settings.real("shift"));
  }

 private:
  at::Tensor apply(at::Tensor x, bool) const override {
    return linear(at::exp(linear(x, inner_scale_, 0)), outer_scale_, 0);
  }

  double inner_scale_;
  double outer_scale_;
};

// The logarithm to `base` of shift + scale x.
class Log final : public Elementwise {
 public:
  explicit Log(const LayerConfig& config)
      : Elementwise(config),
        settings_(message().message("log_param")),
        log_base_(log_of_base(*this, settings_)),
        scale_(settings_.real("scale")),
        shift_(settings_.real("shift")) {
    if (log_base_ == 0) fail_at(settings_.position("base"), "has base 1, to which there are no logarithms");
  }

 private:
  at::Tensor apply(at::Tensor x, bool) const override {
    return linear(at::log(linear(x, scale_, shift_)), 1 / log_base_, 0);
  }

  proto::Message settings_;
  double log_base_;
  double scale_;
  double shift_;
};

// (shift + scale x)^power.
//
// Caffe derives it as power times the result over (shift + scale x), which is not a number where that is zero. Here it
// is the derivative.
class Power final : public Elementwise {
 public:
  explicit Power(const LayerConfig& config)
      : Elementwise(config),
        power_(message().message("power_param").real("power")),
        scale_(message().message("power_param").real("scale")),
        shift_(message().message("power_param").real("shift")) {}

 private:
  at::Tensor apply(at::Tensor x, bool) const override {
    // As in Caffe a constant, whatever x is: infinities too.
    if (power_ == 0 || scale_ == 0) return at::full_like(x, power_ == 0 ? 1 : std::pow(shift_, power_));
    const at::Tensor base = linear(x, scale_, shift_);
    return power_ == 1 ? base : at::pow(base, power_);
  }

  double power_;
  double scale_;
  double shift_;
};

}  // namespace

std::unique_ptr<Layer> make_exp(const LayerConfig& config) {
  return std::make_unique<Exp>(config);
}
std::unique_ptr<Layer> make_log(const LayerConfig& config) {
  return std::make_unique<Log>(config);
}
std::unique_ptr<Layer> make_power(const LayerConfig& config) {
  return std::make_unique<Power>(config);
}

}  // namespace poseidon::caffe
