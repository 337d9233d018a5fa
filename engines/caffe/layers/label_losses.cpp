// Losses of scores beside labels: HingeLoss, InfogainLoss and MultinomialLogisticLoss. (SoftmaxWithLoss has a file of
// its own.)
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <type_traits>

#include "base/text.h"
#include "engines/caffe/layers/labels.h"
#include "engines/caffe/layers/loss_normalization.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/blob_file.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

// Probabilities are taken for at least this much before their logarithm, so that no loss is infinite. The gradient does
// not know of it, as in Caffe: it is that of the logarithm at the floor.
constexpr double kProbabilityFloor = 1e-20;

at::Tensor raised_to(double floor, const at::Tensor& x) {
  return at::where(x.lt(floor), floor + (x - x.detach()), x);
}

// [records, scores of a record], whatever axes the scores have: one label for each record.
Shape record_rows(const Layer& layer, const Shape& scores) {
  if (scores.empty() || scores[0] < 1) {
    layer.fail(base::concat("wants the scores of records; bottom \"", layer.bottoms()[0], "\" is ",
                            base::readable_shape(scores)));
  }
  return {scores[0], elements_of(scores) / scores[0]};
}

LabelledScores labelled_records(const Layer& layer, const std::vector<at::Tensor>& bottoms) {
  const Shape rows = record_rows(layer, bottoms[0].sizes().vec());
  return labelled_scores(bottoms[0].reshape(rows), bottoms[1], 1);
}

// Runs what takes labels for indices, and names the label that is none.
template <typename Compute>
at::Tensor with_labels(const Layer& layer, const LabelledScores& both, std::optional<std::int64_t> ignored,
                       const Compute& compute) {
  try {
    return compute();
  } catch (const c10::Error&) {
    explain_bad_label(layer, both, ignored);
    throw;
  }
}

// One class against all others: max(0, 1 - x) for the label's score and max(0, 1 + x) for all others, or the squares of
// these, summed, and divided by the records.
class HingeLoss final : public Layer {
 public:
  explicit HingeLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .automatic_tops = true}),
        squared_(message().message("hinge_loss_param").choice("norm") == "L2") {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_labelled_shapes(*this, record_rows(*this, bottoms[0]), bottoms[1], 1);
    return {Shape{}};
  }

  bool is_loss() const override { return true; }
  bool differentiable(std::size_t bottom) const override { return bottom == 0; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const LabelledScores both = labelled_records(*this, bottoms);
    const at::Tensor signs = with_labels(
        *this, both, {}, [&] { return at::ones_like(both.scores.detach()).scatter_(1, both.labels.unsqueeze(1), -1); });
    const at::Tensor costs = at::relu(1 + signs * both.scores);
    return {(squared_ ? costs.square() : costs).sum() / static_cast<double>(both.scores.size(0))};
  }

 private:
  bool squared_;
};

// -Σ_l H(label, l) log softmax(x)_l: the rows of the matrix H [classes, classes] say how much each answer is worth for
// each label. With H the identity it is SoftmaxWithLoss.
class InfogainLoss final : public Layer {
 public:
  explicit InfogainLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 3, .tops_max = 2, .automatic_tops = true}),
        settings_(message().message("infogain_loss_param")),
        normalization_(message().message("loss_param")) {
    if (this->bottoms().size() < 3) matrix_ = read_matrix();
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottoms[0]);
    check_labelled_shapes(*this, bottoms[0], bottoms[1], axis);
    check_matrix(bottoms[0][axis], bottoms.size() == 3 ? bottoms[2] : matrix_.sizes().vec());
    std::vector<Shape> tops_of_both = {Shape{}, bottoms[0]};
    tops_of_both.resize(tops().size());
    return tops_of_both;
  }

  bool is_loss() const override { return true; }
  bool differentiable(std::size_t bottom) const override { return bottom == 0; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const std::size_t axis = canonical_axis(settings_.integer("axis"), bottoms[0].sizes().vec());
    const LabelledScores both = labelled_scores(bottoms[0], bottoms[1], axis);
    const std::int64_t classes = both.scores.size(1);
    // There is no gradient to the matrix, in Caffe neither.
    const at::Tensor matrix = (bottoms.size() == 3 ? bottoms[2].detach() : matrix_).reshape({classes, classes});
    const at::Tensor log_probabilities = at::log_softmax(both.scores, 1);
    const at::Tensor worth = with_labels(*this, both, normalization_.ignored(), [&] { return worths(both, matrix); });
    const at::Tensor sum = -(worth * raised_to(std::log(kProbabilityFloor), log_probabilities)).sum();
    std::vector<at::Tensor> tops = {normalization_.divided(sum, both.labels, context)};
    // For looking at, as the second top of SoftmaxWithLoss.
    if (this->tops().size() == 2) tops.push_back(log_probabilities.detach().exp().view(bottoms[0].sizes()));
    return tops;
  }

 private:
  at::Tensor read_matrix() const {
    const std::string source = settings_.text("source");
    if (source.empty()) {
      fail_at(settings_.position("source"),
              "needs its matrix: infogain_loss_param { source: \"FILE.binaryproto\" }, or a third bottom");
    }
    try {
      return std::visit(
          [&](auto numbers) {
            using Scalar = typename decltype(numbers)::value_type;
            const auto count = static_cast<std::int64_t>(numbers.size());
            return at::from_blob(numbers.data(), {count}, c10::CppTypeToScalarType<Scalar>::value)
                .to(dtype(), /*non_blocking=*/false, /*copy=*/true);
          },
          proto::read_blob(source).values);
    } catch (const ConfigError& error) {
      fail_at(settings_.position("source"), base::concat("has no usable matrix: ", error.what()));
    }
  }

  void check_matrix(std::int64_t classes, const Shape& matrix) const {
    if (elements_of(matrix) == classes * classes) return;
    fail_at(bottoms().size() == 3 ? message().position("bottom", 2) : settings_.position("source"),
            base::concat("has a matrix of ", elements_of(matrix), " numbers; ", classes, " classes need ", classes,
                         " x ", classes));
  }

  // The row of each position's label, in the shape of the scores; zeros where the label is ignored.
  at::Tensor worths(const LabelledScores& both, const at::Tensor& matrix) const {
    const std::optional<std::int64_t> ignored = normalization_.ignored();
    const at::Tensor flat = both.labels.flatten();
    at::Tensor rows = matrix.index_select(0, ignored ? flat.masked_fill(flat.eq(*ignored), 0) : flat);
    if (ignored) rows.masked_fill_(flat.eq(*ignored).unsqueeze(1), 0);
    if (both.labels.dim() == 1) return rows;
    return rows.view({both.labels.size(0), both.labels.size(1), matrix.size(1)}).transpose(1, 2);
  }

  proto::Message settings_;
  LossNormalization normalization_;
  at::Tensor matrix_;  // flat, from the file; undefined where the third bottom brings it
};

// -log of the label's probability, divided by the records. The bottom already has probabilities.
class MultinomialLogisticLoss final : public Layer {
 public:
  explicit MultinomialLogisticLoss(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .automatic_tops = true}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    check_labelled_shapes(*this, record_rows(*this, bottoms[0]), bottoms[1], 1);
    return {Shape{}};
  }

  bool is_loss() const override { return true; }
  bool differentiable(std::size_t bottom) const override { return bottom == 0; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const LabelledScores both = labelled_records(*this, bottoms);
    const at::Tensor own =
        with_labels(*this, both, {}, [&] { return both.scores.gather(1, both.labels.unsqueeze(1)); });
    return {-raised_to(kProbabilityFloor, own).log().sum() / static_cast<double>(both.scores.size(0))};
  }
};

}  // namespace

std::unique_ptr<Layer> make_hinge_loss(const LayerConfig& config) {
  return std::make_unique<HingeLoss>(config);
}

std::unique_ptr<Layer> make_infogain_loss(const LayerConfig& config) {
  return std::make_unique<InfogainLoss>(config);
}

std::unique_ptr<Layer> make_multinomial_logistic_loss(const LayerConfig& config) {
  return std::make_unique<MultinomialLogisticLoss>(config);
}

}  // namespace poseidon::caffe
