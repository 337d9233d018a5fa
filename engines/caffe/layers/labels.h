// Scores of classes beside labels: what SoftmaxWithLoss and Accuracy have in common.
//
// The scores' axes before the class axis (`outer`) and behind it (`inner`) count positions; each position has one
// label.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

// Without the axis `inner` where that is 1, for which ATen is quicker.
struct LabelledScores {
  at::Tensor scores;  // [outer, classes, inner] or [outer, classes]
  at::Tensor labels;  // [outer, inner] or [outer], int64
};

// Throws ConfigError unless the second bottom has a label for each position of the first.
void check_labelled_shapes(const Layer& layer, const Shape& scores, const Shape& labels, std::size_t axis);

LabelledScores labelled_scores(const at::Tensor& scores, const at::Tensor& labels, std::size_t axis);

// For when ATen has refused the labels as indices: throws ConfigError that names the first label outside [0, classes),
// `ignored` apart. Returns where all are inside, and the trouble was another.
void explain_bad_label(const Layer& layer, const LabelledScores& both, std::optional<std::int64_t> ignored);

}  // namespace poseidon::caffe
