// How a gradient changes an array: the formulas of Caffe's solvers.
//
// They differ from those of other libraries in where the learning rate stands: Caffe multiplies the gradient by it
// before it goes into the history, so that a step made while the rate was high keeps its size when the rate falls.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string_view>

#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {

// One step of one array.
struct UpdateStep {
  at::Tensor value;         // W
  at::Tensor gradient_sum;  // over all contributors; undefined where nobody had a gradient, which counts as zero
  double contributors = 1;  // g = gradient_sum / contributors
  double rate = 0;          // α, the array's lr_mult included
  double decay = 0;         // λ, the array's decay_mult included
  std::span<const at::Tensor> history;  // as many as the rule asks for, of the shape of W
};

class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  // As in a SolverParameter's `type`: "SGD".
  virtual std::string_view type() const = 0;
  // How many arrays of history each array has. They begin as zeros.
  virtual std::size_t histories() const = 0;
  // Makes the step in place. Runs without autograd.
  virtual void update(const UpdateStep& step) const = 0;
};

// The rule that a SolverParameter asks for. Throws ConfigError for what there is not (yet).
std::unique_ptr<UpdateRule> read_update_rule(const proto::Message& solver);

}  // namespace poseidon::caffe
