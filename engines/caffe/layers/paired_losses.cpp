// Losses of one blob beside another of its size: ContrastiveLoss, EuclideanLoss and SigmoidCrossEntropyLoss.
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/layers/loss_normalization.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// Shapes may differ, as long as there are as many records and as many elements.
void check_pair(const Layer& layer, const std::vector<Shape>& bottoms) {
  const Shape& first = bottoms[0];
  const Shape& second = bottoms[1];
  if (!first.empty() && !second.empty() && first[0] == second[0] && elements_of(first) == elements_of(second)) return;
  layer.fail(base::concat("wants two blobs with as many records and as many elements: \"", layer.bottoms()[0], "\" is ",
                          base::readable_shape(first), ", \"", layer.bottoms()[1], "\" is ",
                          base::readable_shape(second)));
}

// [records, everything else].
at::Tensor rows_of(const at::Tensor& x) {
  return x.reshape({x.size(0), x.numel() / std::max<std::int64_t>(1, x.size(0))});
}

// Half the mean over the pairs of d² where they are alike, and of max(0, margin - d)² where they are not, d being the
// pair's Euclidean distance. (Hadsell, Chopra and LeCun, CVPR 2006; the legacy version has max(0, margin - d²).)
class ContrastiveLoss final : public Layer {
 public:
  explicit ContrastiveLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 3, .bottoms_max = 3, .automatic_tops = true}),
        margin_(message().message("contrastive_loss_param").real("margin")),
        legacy_(message().message("contrastive_loss_param").flag("legacy_version")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_pair(*this, bottoms);
    if (elements_of(bottoms[2]) != bottoms[0][0]) {
      fail(base::concat("wants one number for each of ", bottoms[0][0], " pairs, not 0 where they are alike; ",
                        describe_bottom(2, bottoms[2])));
    }
    return {Shape{}};
  }

  bool is_loss() const override { return true; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor squares = (rows_of(bottoms[0]) - rows_of(bottoms[1])).square().sum(1);
    // Caffe makes an int of it: what is between -1 and 1 is unlike.
    const at::Tensor alike = bottoms[2].reshape(squares.sizes()).trunc().ne(0);
    const at::Tensor unlike_costs = legacy_ ? at::relu(margin_ - squares) : costs_of_unlike(squares);
    return {at::where(alike, squares, unlike_costs).sum() / (2.0 * static_cast<double>(squares.size(0)))};
  }

 private:
  // max(0, margin - d)². Its derivative by d² is -max(0, margin - d) / d, where Caffe has d + 1e-4 below the line, so
  // that equal vectors have a gradient of zero and not one of no direction.
  at::Tensor costs_of_unlike(const at::Tensor& squares) const {
    const at::Tensor fixed = squares.detach();
    const at::Tensor distance = fixed.sqrt();
    const at::Tensor missing = at::relu(margin_ - distance);
    return missing.square() - missing / (distance + 1e-4) * (squares - fixed);
  }

  double margin_;
  bool legacy_;
};

// Half the mean over the records of the squared distance.
class EuclideanLoss final : public Layer {
 public:
  explicit EuclideanLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .automatic_tops = true}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_pair(*this, bottoms);
    return {Shape{}};
  }

  bool is_loss() const override { return true; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor difference = bottoms[0] - bottoms[1].reshape(bottoms[0].sizes());
    return {difference.square().sum() / (2.0 * static_cast<double>(difference.size(0)))};
  }
};

// -t log σ(x) - (1 - t) log(1 - σ(x)), summed over all elements whose target is not ignored. Unlike the other losses it
// is divided by the records where nothing is stated.
class SigmoidCrossEntropyLoss final : public Layer {
 public:
  explicit SigmoidCrossEntropyLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .automatic_tops = true}),
        normalization_(message().message("loss_param"), LossNormalization::Mode::kBatchSize) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_pair(*this, bottoms);
    return {Shape{}};
  }

  bool is_loss() const override { return true; }
  bool differentiable(std::size_t bottom) const override { return bottom == 0; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor& x = bottoms[0];
    const at::Tensor targets = bottoms[1].detach().reshape(x.sizes());
    if (!normalization_.ignored()) {
      const at::Tensor sum = at::binary_cross_entropy_with_logits(x, targets, {}, {}, at::Reduction::Sum);
      return {normalization_.divided(sum, targets, context)};
    }
    // A target is ignored by its whole part, as in Caffe.
    const at::Tensor labels = targets.trunc();
    const at::Tensor costs = at::binary_cross_entropy_with_logits(x, targets, {}, {}, at::Reduction::None);
    const at::Tensor sum = costs.masked_fill(labels.eq(*normalization_.ignored()), 0).sum();
    return {normalization_.divided(sum, labels, context)};
  }

 private:
  LossNormalization normalization_;
};

}  // namespace

std::unique_ptr<Layer> make_contrastive_loss(const LayerConfig& config) {
  return std::make_unique<ContrastiveLoss>(config);
}

std::unique_ptr<Layer> make_euclidean_loss(const LayerConfig& config) {
  return std::make_unique<EuclideanLoss>(config);
}

std::unique_ptr<Layer> make_sigmoid_cross_entropy_loss(const LayerConfig& config) {
  return std::make_unique<SigmoidCrossEntropyLoss>(config);
}

}  // namespace poseidon::caffe
