// Several elements become one, or the best few: ArgMax and Reduction.
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// The indices of the `top_k` greatest elements, along an axis or among all that belong to a record; of equal ones the
// later comes first, as in Caffe, which sorts pairs of value and index.
//
// With an axis the top has top_k elements along it: the indices, or with out_max_val the values. Without, it is
// [records, 1, top_k], or with out_max_val [records, 2, top_k], indices before values, with axes of extent 1 behind
// up to the bottom's number of axes.
class ArgMax final : public Layer {
 public:
  explicit ArgMax(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("argmax_param")),
        top_k_(settings_.integer("top_k")),
        values_(settings_.flag("out_max_val")),
        has_axis_(settings_.has("axis")) {
    if (top_k_ < 1) fail_at(settings_.position("top_k"), base::concat("has top_k ", top_k_, "; it must be at least 1"));
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    if (bottom.empty()) fail(base::concat("wants records; ", describe_bottom(0, bottom)));
    const std::int64_t candidates =
        has_axis_ ? bottom[canonical_axis(settings_.integer("axis"), bottom)] : per_record(bottom);
    if (top_k_ > candidates) {
      fail_at(settings_.position("top_k"),
              base::concat("has top_k ", top_k_, " of ", candidates, "; ", describe_bottom(0, bottom)));
    }
    if (has_axis_) {
      Shape top = bottom;
      top[canonical_axis(settings_.integer("axis"), bottom)] = top_k_;
      return {top};
    }
    Shape top(std::max<std::size_t>(bottom.size(), 3), 1);
    top[0] = bottom[0];
    top[1] = values_ ? 2 : 1;
    top[2] = top_k_;
    return {top};
  }

  bool differentiable(std::size_t) const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const c10::NoGradGuard no_graph;
    const Shape shape = bottoms[0].sizes().vec();
    const Shape top = top_shapes({shape})[0];
    if (has_axis_) {
      const auto [values, indices] = best(bottoms[0], settings_.integer("axis"));
      return {(values_ ? values : indices).contiguous()};
    }
    const auto [values, indices] = best(bottoms[0].reshape({shape[0], per_record(shape)}), 1);
    return {(values_ ? at::stack({indices, values}, 1) : indices).reshape(top)};
  }

 private:
  static std::int64_t per_record(const Shape& bottom) { return elements_of(Shape(bottom.begin() + 1, bottom.end())); }

  // Values and indices of the best. Turned round, so that a stable sort finds the last of equal ones first.
  std::pair<at::Tensor, at::Tensor> best(const at::Tensor& x, std::int64_t axis) const {
    const auto [values, places] = at::sort(x.flip(axis), /*stable=*/true, axis, /*descending=*/true);
    const at::Tensor indices = x.size(axis) - 1 - places.narrow(axis, 0, top_k_);
    return {values.narrow(axis, 0, top_k_), indices.to(dtype())};
  }

  proto::Message settings_;
  std::int64_t top_k_;
  bool values_;
  bool has_axis_;
};

// coeff times the sum, the mean, or the sum of absolute values or squares, of everything from `axis` on.
class Reduction final : public Layer {
 public:
  explicit Reduction(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("reduction_param")),
        operation_(settings_.choice("operation")),
        coefficient_(settings_.real("coeff")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottoms[0]);
    return {Shape(bottoms[0].begin(), bottoms[0].begin() + static_cast<std::ptrdiff_t>(axis))};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor x = bottoms[0].flatten(settings_.integer("axis"));
    const at::Tensor sum = terms(x).sum(-1);
    const double factor = operation_ == "MEAN" ? coefficient_ / static_cast<double>(x.size(-1)) : coefficient_;
    return {factor == 1 ? sum : sum * factor};
  }

 private:
  at::Tensor terms(const at::Tensor& x) const {
    if (operation_ == "ASUM") return x.abs();
    if (operation_ == "SUMSQ") return x.square();
    return x;
  }

  proto::Message settings_;
  std::string operation_;
  double coefficient_;
};

}  // namespace

std::unique_ptr<Layer> make_arg_max(const LayerConfig& config) {
  return std::make_unique<ArgMax>(config);
}
std::unique_ptr<Layer> make_reduction(const LayerConfig& config) {
  return std::make_unique<Reduction>(config);
}

}  // namespace poseidon::caffe
