// Layers that bring what they read to a common size: BatchNorm, LRN and MVN.
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>

#include "base/text.h"
#include "engines/caffe/layers/global_batch_norm.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// (x - mean) / sqrt(variance + eps) for each channel (Ioffe and Szegedy, ICML 2015); a Scale layer behind it has the
// factor and the offset of that paper.
//
// Mean and variance are those of the batch, or the moving averages over all batches. The averages are three arrays, as
// in Caffe's models: sums of means and of variances (with m - 1 below the line, m being the values of a channel), in
// which each batch counts `moving_average_fraction` times as much as the next, and the sum of these weights. No solver
// trains them, whatever the prototxt says: forward changes them in training, so whoever shares them (a test net) or
// writes them (a snapshot) has the present ones. Testing changes nothing, even with use_global_stats: false, where
// Caffe's test would: the batches of a test are shared out to workers, whose averages it would drive apart.
//
// On several workers each has the mean and variance of its own part of the batch, as Caffe has on several devices, or
// where it is asked for all have those of the whole; the averages become the mean of all workers' before they are used.
class BatchNorm final : public Layer {
 public:
  explicit BatchNorm(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("batch_norm_param")),
        by_averages_(settings_.has("use_global_stats") ? settings_.flag("use_global_stats") : phase() == Phase::kTest),
        remaining_(settings_.real("moving_average_fraction")),
        eps_(settings_.real("eps")) {
    if (remaining_ < 0 || remaining_ > 1) {
      fail_at(settings_.position("moving_average_fraction"),
              base::concat("has moving_average_fraction ", remaining_, "; it must be from 0 to 1"));
    }
    if (eps_ < 0) fail_at(settings_.position("eps"), base::concat("has eps ", eps_, "; it must not be negative"));
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::int64_t channels = channels_of(bottoms[0]);
    if (!parameters().empty() && parameters()[kMean].shape[0] != channels) {
      fail(base::concat("has the averages of ", parameters()[kMean].shape[0], " channels; ",
                        describe_bottom(0, bottoms[0])));
    }
    return bottoms;
  }

  // ATen keeps the bottom, the mean and the root for the backward pass.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& x = bottoms[0];
    if (x.dim() == 1) return {normalized(context, x.unsqueeze(1)).squeeze(1)};
    return {normalized(context, x)};
  }

 private:
  static constexpr std::size_t kMean = 0;
  static constexpr std::size_t kVariance = 1;
  static constexpr std::size_t kWeight = 2;

  void declare_parameters(const std::vector<Shape>& bottoms) override {
    const std::int64_t channels = channels_of(bottoms[0]);
    add_parameter("mean", {channels}, {});
    add_parameter("variance", {channels}, {});
    add_parameter("weight", {1}, {});
    for (Parameter& average : parameters()) {
      average.lr_mult = 0;
      average.is_statistic = true;
    }
  }

  std::int64_t channels_of(const Shape& shape) const {
    if (shape.empty()) fail(base::concat("wants at least one axis; ", describe_bottom(0, shape)));
    return shape.size() == 1 ? 1 : shape[1];
  }

  at::Tensor normalized(const ForwardContext& context, const at::Tensor& x) {
    if (by_averages_) return normalized_by_averages(x);
    if (!context.sync_batch_norm || !context.has_other_workers()) return normalized_by_batch(x);
    const GlobalBatchNorm all = normalized_over_workers(x, eps_, *context.workers);
    add_to_averages(all.mean, all.variance);
    return all.y;
  }

  at::Tensor normalized_by_averages(const at::Tensor& x) const {
    const auto weight = array(kWeight).item<double>();
    const double share = weight == 0 ? 0 : 1 / weight;
    return at::batch_norm(x, {}, {}, array(kMean) * share, array(kVariance) * share, /*training=*/false,
                          /*momentum=*/0, eps_, /*cudnn_enabled=*/false);
  }

  at::Tensor normalized_by_batch(const at::Tensor& x) {
    // With momentum 1 ATen's own averages are the batch's: the mean, and the variance with m - 1 below the line.
    const at::Tensor mean = at::zeros({x.size(1)}, x.options());
    const at::Tensor variance = at::zeros({x.size(1)}, x.options());
    at::Tensor y = at::batch_norm(x, {}, {}, mean, variance, /*training=*/true, /*momentum=*/1, eps_,
                                  /*cudnn_enabled=*/false);
    if (x.numel() == x.size(1)) variance.zero_();  // a single value varies by nothing, not by 0 / 0
    if (phase() == Phase::kTrain) add_to_averages(mean, variance);
    return y;
  }

  void add_to_averages(const at::Tensor& mean, const at::Tensor& variance) {
    const c10::NoGradGuard no_graph;
    array(kMean).mul_(remaining_).add_(mean);
    array(kVariance).mul_(remaining_).add_(variance);
    array(kWeight).mul_(remaining_).add_(1);
  }

  proto::Message settings_;
  bool by_averages_;
  double remaining_;  // the share of the averages that a batch leaves
  double eps_;
};

// Local response normalisation: x / (k + alpha mean x²)^beta, the mean being over `local_size` channels around each one
// or over as many rows and columns of its own channel, with zeros outside (Krizhevsky, Sutskever and Hinton, NIPS
// 2012). WITHIN_CHANNEL takes 1 for k, whatever the prototxt says, as Caffe does.
class Lrn final : public Layer {
 public:
  explicit Lrn(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("lrn_param")),
        size_(settings_.integer("local_size")),
        across_(settings_.choice("norm_region") == "ACROSS_CHANNELS"),
        k_(across_ ? settings_.real("k") : 1),
        alpha_(settings_.real("alpha")),
        beta_(settings_.real("beta")) {
    // The upper bound is that of ATen's windows.
    if (size_ % 2 == 0 || size_ > std::numeric_limits<std::int32_t>::max()) {
      fail_at(settings_.position("local_size"),
              base::concat("has local_size ", size_, "; it must be odd, so that it has a middle, and below 2^31"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    if (bottoms[0].size() != 4) {
      fail(base::concat("wants images [records, channels, height, width]; ", describe_bottom(0, bottoms[0])));
    }
    return bottoms;
  }

  // The product keeps its factors.
  bool keeps_tops() const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& x = bottoms[0];
    const at::Tensor means = across_ ? means_across(x.square()) : means_within(x.square());
    return {x * (means * alpha_ + k_).pow(-beta_)};
  }

 private:
  // A window over channels is one of `local_size` rows, when a row is a whole channel.
  at::Tensor means_across(const at::Tensor& squares) const {
    const at::Tensor channels =
        squares.reshape({squares.size(0), 1, squares.size(1), squares.size(2) * squares.size(3)});
    return at::avg_pool2d(channels, {size_, 1}, {1, 1}, {size_ / 2, 0}, /*ceil_mode=*/false,
                          /*count_include_pad=*/true)
        .view(squares.sizes());
  }

  at::Tensor means_within(const at::Tensor& squares) const {
    return at::avg_pool2d(squares, {size_, size_}, {1, 1}, {size_ / 2, size_ / 2}, /*ceil_mode=*/false,
                          /*count_include_pad=*/true);
  }

  proto::Message settings_;
  std::int64_t size_;
  bool across_;
  double k_;
  double alpha_;
  double beta_;
};

// (x - mean) / (deviation + eps), over each channel of a record by itself or over the whole record.
class Mvn final : public Layer {
 public:
  explicit Mvn(const LayerConfig& config)
      : Layer(config, {}),
        scales_(message().message("mvn_param").flag("normalize_variance")),
        across_(message().message("mvn_param").flag("across_channels")),
        eps_(message().message("mvn_param").real("eps")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    if (bottoms[0].empty()) fail(base::concat("wants at least one axis; ", describe_bottom(0, bottoms[0])));
    return bottoms;
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& x = bottoms[0];
    const std::int64_t rows = x.dim() > 1 && !across_ ? x.size(0) * x.size(1) : x.size(0);
    const at::Tensor values = x.reshape({rows, x.numel() / std::max<std::int64_t>(1, rows)});
    const at::Tensor centred = values - values.mean(1, /*keepdim=*/true);
    return {(scales_ ? scaled(centred) : centred).view(x.sizes())};
  }

 private:
  // Caffe takes the derivative of 1 / (deviation + eps) by the variance as -1 / (2 (deviation + eps)³), which leaves
  // eps out of account in one place, and is finite where nothing varies and the root has no derivative.
  at::Tensor scaled(const at::Tensor& centred) const {
    const at::Tensor variance = centred.square().mean(1, /*keepdim=*/true);
    const at::Tensor fixed = variance.detach();
    const at::Tensor factor = (fixed.sqrt() + eps_).reciprocal();
    return centred * (factor - factor.pow(3) / 2 * (variance - fixed));
  }

  bool scales_;
  bool across_;
  double eps_;
};

}  // namespace

std::unique_ptr<Layer> make_batch_norm(const LayerConfig& config) {
  return std::make_unique<BatchNorm>(config);
}

std::unique_ptr<Layer> make_lrn(const LayerConfig& config) {
  return std::make_unique<Lrn>(config);
}

std::unique_ptr<Layer> make_mvn(const LayerConfig& config) {
  return std::make_unique<Mvn>(config);
}

}  // namespace poseidon::caffe
