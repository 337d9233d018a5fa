// How a gradient changes an array: the formulas of Caffe's solvers.
//
// They differ from those of other libraries in where the learning rate stands: where there is a momentum, Caffe
// multiplies the gradient by the rate before it goes into the history, so that a step made while the rate was high
// keeps its size when the rate falls. They differ in the place of delta, too; each rule says where it has it. Weight
// decay is part of the gradient everywhere, as in Caffe: g stands for gradient + λW, or gradient + λ sign(W) with L1.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string_view>

#include "engines/caffe/proto/message.h"
#include "poseidon/types.h"

namespace poseidon::caffe {

// One step of one array.
struct UpdateStep {
  at::Tensor value;         // W
  at::Tensor gradient_sum;  // over all contributors; undefined where nobody had a gradient, which counts as zero
  double divisor = 1;       // gradient = gradient_sum / divisor
  double rate = 0;          // α, the array's lr_mult included
  double decay = 0;         // λ, the array's decay_mult included
  Iteration iteration = 0;  // how many updates came before this one
  std::span<const at::Tensor> history;  // as many as the rule asks for, of the shape of W
};

class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  // As in a SolverParameter's `type`: "SGD".
  virtual std::string_view type() const = 0;
  // How many arrays of history each array has. They begin as zeros; in a .solverstate the first ones of all arrays come
  // before the second ones, as in Caffe.
  virtual std::size_t histories() const = 0;
  // Makes the step in place. Runs without autograd.
  virtual void update(const UpdateStep& step) const = 0;
};

// The rule that a SolverParameter asks for, or the one of type `instead`. Throws ConfigError for a type that there is
// not, and for settings that the type does not have or that make no sense for it.
std::unique_ptr<UpdateRule> read_update_rule(const proto::Message& solver, std::string_view instead = {});

}  // namespace poseidon::caffe
