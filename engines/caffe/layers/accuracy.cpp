// Accuracy: the share of labels that are among the `top_k` best scores, and with a second top the same for each class.
//
// As in Caffe, a class counts as better than the label's when its score is equal or higher, the label's own class
// included: ties count against. A score that is not a number is never right.
#include <ATen/ops/gather.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "base/text.h"
#include "engines/caffe/layers/labels.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Accuracy final : public Layer {
 public:
  explicit Accuracy(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .tops_max = 2}),
        settings_(message().message("accuracy_param")),
        top_k_(settings_.integer("top_k")) {
    if (settings_.has("ignore_label")) ignored_ = settings_.integer("ignore_label");
    if (top_k_ < 1) fail_at(settings_.position("top_k"), base::concat("has top_k ", top_k_, "; it must be at least 1"));
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottoms[0]);
    check_labelled_shapes(*this, bottoms[0], bottoms[1], axis);
    if (top_k_ > bottoms[0][axis]) {
      fail_at(settings_.position("top_k"), base::concat("has top_k ", top_k_, " of ", bottoms[0][axis], " classes; ",
                                                        describe_bottom(0, bottoms[0])));
    }
    std::vector<Shape> tops_of_both = {Shape{}, Shape{bottoms[0][axis]}};
    tops_of_both.resize(tops().size());
    return tops_of_both;
  }

  bool differentiable(std::size_t) const override { return false; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const c10::NoGradGuard no_graph;
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottoms[0].sizes().vec());
    const LabelledScores both = labelled_scores(bottoms[0], bottoms[1], axis);
    const at::Tensor counted = ignored_ ? both.labels.ne(*ignored_) : at::ones_like(both.labels, at::kBool);
    const at::Tensor labels = ignored_ ? at::where(counted, both.labels, at::zeros_like(both.labels)) : both.labels;
    const at::Tensor right = is_right(both, labels).logical_and_(counted);
    std::vector<at::Tensor> tops = {share(right.sum(), counted.sum())};
    if (this->tops().size() == 2) {
      tops.push_back(share(count_by_class(labels, right, both), count_by_class(labels, counted, both)));
    }
    return tops;
  }

 private:
  // For labels that are all classes.
  at::Tensor is_right(const LabelledScores& both, const at::Tensor& labels) const {
    try {
      const at::Tensor own = both.scores.gather(1, labels.unsqueeze(1));
      return both.scores.lt(own).logical_not_().sum(1).le_(top_k_).to(at::kBool);
    } catch (const c10::Error&) {
      explain_bad_label(*this, both, ignored_);
      throw;
    }
  }

  static at::Tensor count_by_class(const at::Tensor& labels, const at::Tensor& counted, const LabelledScores& both) {
    return at::zeros({both.scores.size(1)}, labels.options())
        .index_add_(0, labels.flatten(), counted.to(at::kLong).flatten());
  }

  // Zero where there is nothing to count.
  at::Tensor share(const at::Tensor& part, const at::Tensor& whole) const {
    return part.to(dtype()).div_(whole.clamp_min(1));
  }

  proto::Message settings_;
  std::int64_t top_k_;
  std::optional<std::int64_t> ignored_;
};

}  // namespace

std::unique_ptr<Layer> make_accuracy(const LayerConfig& config) {
  return std::make_unique<Accuracy>(config);
}

}  // namespace poseidon::caffe
