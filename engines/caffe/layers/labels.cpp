#include "engines/caffe/layers/labels.h"

#include "base/text.h"

namespace poseidon::caffe {

void check_labelled_shapes(const Layer& layer, const Shape& scores, const Shape& labels, std::size_t axis) {
  const std::int64_t positions = elements_of(scores) / (scores[axis] > 0 ? scores[axis] : 1);
  if (elements_of(labels) == positions) return;
  layer.fail(base::concat("wants one label for each of ", positions, " positions: scores \"", layer.bottoms()[0],
                          "\" are ", base::readable_shape(scores), " with the classes on axis ", axis, ", labels \"",
                          layer.bottoms()[1], "\" are ", base::readable_shape(labels)));
}

LabelledScores labelled_scores(const at::Tensor& scores, const at::Tensor& labels, std::size_t axis) {
  const auto class_axis = static_cast<std::int64_t>(axis);
  std::int64_t outer = 1;
  for (std::int64_t i = 0; i < class_axis; ++i) outer *= scores.size(i);
  const std::int64_t classes = scores.size(class_axis);
  const std::int64_t inner = outer == 0 ? 0 : labels.numel() / outer;
  const at::Tensor indices = labels.to(at::kLong);
  if (inner == 1) return {scores.reshape({outer, classes}), indices.reshape({outer})};
  return {scores.reshape({outer, classes, inner}), indices.reshape({outer, inner})};
}

void explain_bad_label(const Layer& layer, const LabelledScores& both, std::optional<std::int64_t> ignored) {
  const std::int64_t classes = both.scores.size(1);
  const at::Tensor labels = both.labels.contiguous();
  const std::int64_t* const values = labels.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    if (values[i] >= 0 && values[i] < classes) continue;
    if (ignored == values[i]) continue;
    layer.fail(base::concat("met label ", values[i], " in record ", i * labels.size(0) / labels.numel(),
                            " of a batch of \"", layer.bottoms()[1], "\", but \"", layer.bottoms()[0], "\" has ",
                            classes, " classes: labels go from 0 to ", classes - 1));
  }
}

}  // namespace poseidon::caffe
