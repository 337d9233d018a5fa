#include "engines/caffe/layers/global_batch_norm.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>
#include <vector>

namespace poseidon::caffe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// All axes but the channels'.
std::vector<std::int64_t> other_axes(const at::Tensor& x) {
  std::vector<std::int64_t> axes = {0};
  for (std::int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  return axes;
}

at::Tensor along_channels(const at::Tensor& values, const at::Tensor& x) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[1] = x.size(1);
  return values.to(x.scalar_type()).view(shape);
}

struct Moments {
  at::Tensor mean;     // [channels], kDouble
  at::Tensor squares;  // [channels], the sum of squared deviations from it
  double count = 0;    // of values of each channel
};

Moments moments_of_all(const at::Tensor& x, aten::GradientExchange& workers) {
  const std::int64_t channels = x.size(1);
  const auto count = static_cast<double>(x.numel() / channels);
  const at::Tensor mean = x.mean(other_axes(x), /*keepdim=*/false, at::kDouble);
  const at::Tensor deviations = x - along_channels(mean, x);
  // What the rounded mean leaves is put right, so that float32 loses no more than it must.
  const at::Tensor rest = deviations.mean(other_axes(x), /*keepdim=*/false, at::kDouble);
  const at::Tensor own_mean = along_channels(mean, x).flatten().to(at::kDouble) + rest;
  const at::Tensor squares = deviations.square().sum(other_axes(x), /*keepdim=*/false, at::kDouble) - count * rest.square();
  const std::vector<at::Tensor> all = workers.gather(at::cat({at::full({1}, count, own_mean.options()), own_mean, squares}));
  Moments total{.mean = at::zeros_like(own_mean), .squares = at::zeros_like(squares), .count = 0};
  for (const at::Tensor& part : all) {
    total.count += part[0].item<double>();
    total.mean += part[0] * part.slice(0, 1, channels + 1);
  }
  total.mean /= total.count;
  for (const at::Tensor& part : all) {
    total.squares += part.slice(0, channels + 1) + part[0] * (part.slice(0, 1, channels + 1) - total.mean).square();
  }
  return total;
}

struct Normalize : torch::autograd::Function<Normalize> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& mean, const at::Tensor& inverse,
                            double count, aten::GradientExchange* workers) {
    const at::Tensor normal = (x - along_channels(mean, x)) * along_channels(inverse, x);
    context->save_for_backward({normal, inverse});
    context->saved_data["count"] = count;
    context->saved_data["workers"] = reinterpret_cast<std::int64_t>(workers);
    return normal;
  }

  // d x = (d y - mean of d y - y · mean of (d y · y)) / root, both means over the global batch (Ioffe and Szegedy, 2015).
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& normal = saved[0];
    const at::Tensor& gradient = gradients[0];
    const std::vector<std::int64_t> axes = other_axes(normal);
    const at::Tensor own = at::stack({gradient.sum(axes, /*keepdim=*/false, at::kDouble),
                                      (gradient * normal).sum(axes, /*keepdim=*/false, at::kDouble)});
    auto* const workers = reinterpret_cast<aten::GradientExchange*>(context->saved_data["workers"].toInt());
    at::Tensor means = at::zeros_like(own);
    for (const at::Tensor& part : workers->gather(own)) means += part;
    means /= context->saved_data["count"].toDouble();
    const at::Tensor d_x = (gradient - along_channels(means[0], normal) - normal * along_channels(means[1], normal)) *
                           along_channels(saved[1], normal);
    return {d_x, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

GlobalBatchNorm normalized_over_workers(const at::Tensor& x, double eps, aten::GradientExchange& workers) {
  Moments all;
  {
    const c10::NoGradGuard no_graph;
    all = moments_of_all(x, workers);
  }
  const at::Tensor inverse = (all.squares / all.count + eps).rsqrt();
  const at::Tensor variance = all.count > 1 ? all.squares / (all.count - 1) : at::zeros_like(all.squares);
  return {.y = Normalize::apply(x, all.mean, inverse, all.count, &workers),
          .mean = all.mean.to(x.scalar_type()),
          .variance = variance.to(x.scalar_type())};
}

}  // namespace poseidon::caffe
