// SoftmaxWithLoss: the negative log-likelihood of the labels under the softmax of the scores, summed over all positions
// whose label is not ignored, and divided by what `normalization` says.
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/nll_loss2d.h>

#include <limits>

#include "engines/caffe/layers/labels.h"
#include "engines/caffe/layers/loss_normalization.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class SoftmaxWithLoss final : public Layer {
 public:
  explicit SoftmaxWithLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .tops_max = 2, .automatic_tops = true}),
        axis_(message().message("softmax_param").integer("axis")),
        normalization_(message().message("loss_param")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_labelled_shapes(*this, bottoms[0], bottoms[1], canonical_axis(axis_, bottoms[0]));
    std::vector<Shape> tops_of_both = {Shape{}, bottoms[0]};
    tops_of_both.resize(tops().size());
    return tops_of_both;
  }

  bool is_loss() const override { return true; }
  bool differentiable(std::size_t bottom) const override { return bottom == 0; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const LabelledScores both =
        labelled_scores(bottoms[0], bottoms[1], canonical_axis(axis_, bottoms[0].sizes().vec()));
    const at::Tensor log_probabilities = at::log_softmax(both.scores, 1);
    std::vector<at::Tensor> tops = {loss(log_probabilities, both, context)};
    // The probabilities are for looking at; Caffe has no gradient through them either.
    if (this->tops().size() == 2) tops.push_back(log_probabilities.detach().exp().view(bottoms[0].sizes()));
    return tops;
  }

 private:
  at::Tensor loss(const at::Tensor& log_probabilities, const LabelledScores& both,
                  const ForwardContext& context) const {
    // ATen ignores one index always; without ignore_label that is one that no label has.
    const std::int64_t ignored = normalization_.ignored().value_or(std::numeric_limits<std::int64_t>::min());
    const bool flat = both.labels.dim() == 1;
    try {
      const at::Tensor sum = flat ? at::nll_loss(log_probabilities, both.labels, {}, at::Reduction::Sum, ignored)
                                  : at::nll_loss2d(log_probabilities.unsqueeze(3), both.labels.unsqueeze(2), {},
                                                   at::Reduction::Sum, ignored);
      return normalization_.divided(sum, both.labels, context);
    } catch (const c10::Error&) {
      explain_bad_label(*this, both, normalization_.ignored());
      throw;
    }
  }

  std::int64_t axis_;
  LossNormalization normalization_;
};

}  // namespace

std::unique_ptr<Layer> make_softmax_with_loss(const LayerConfig& config) {
  return std::make_unique<SoftmaxWithLoss>(config);
}

}  // namespace poseidon::caffe
