// What a net and its solver need from whatever moves gradients between workers.
//
// The forward pass asks for each layer's parameters just before it uses them (`settle`), and the backward pass hands over
// each gradient where it appears (hooks that the implementation attaches to the parameters, and `linear` for layers whose
// gradient may travel as sufficient factors). Between the two nobody waits for the whole model.
//
// All functions are called by the one thread that trains.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "poseidon/types.h"

namespace poseidon::aten {

// One layer's trained arrays. `parameters` are leaves that require a gradient, in the order of LayerSpec::tensors.
struct LayerParameters {
  std::string name;
  std::vector<std::string> parameter_names;  // "ip1.weight", "ip1.bias"
  std::vector<at::Tensor> parameters;
  std::size_t factor_rows = 0;               // as in LayerSpec
  // The gradient of parameters[0], a table, may come sparse: the rows that a worker's iteration touches, at most so many. 0: it is dense.
  std::size_t touched_rows = 0;
};

// The model as the engine must know it, tensors numbered in the order of the layers.
Model model_of(const std::vector<LayerParameters>& layers);

// One gradient, summed over the workers, and what it means.
struct SummedGradient {
  LayerId layer{};
  std::size_t parameter = 0;   // index in LayerParameters::parameters
  Iteration iteration = 0;
  at::Tensor sum;              // may be written again by the layer's next backward pass; undefined if no worker had a gradient
  std::uint32_t contributors;  // the average divides by this
};
// Makes the optimiser step of one parameter. Must not wait for other parameters, but may put the step off until they have come.
using UpdateFn = std::function<void(const SummedGradient&)>;

class GradientExchange {
 public:
  virtual ~GradientExchange() = default;

  virtual int rank() const = 0;
  virtual int workers() const = 0;

  // Gradients that appear from now on belong to this iteration. All of the previous iteration's must have been settled by
  // then or be settled during this iteration's forward pass, before the layer's next backward.
  virtual void begin(Iteration iteration) = 0;

  // With true, backward passes of the iteration that begin() named leave their gradients here, where they add up; with false
  // the next one's are added, and the sums leave in that backward pass. begin() sets it to false.
  virtual void accumulate(bool more) = 0;

  // Returns when the layer's parameters are up to date: waits for the sums of its last gradients and updates with them.
  // While it waits it updates whatever other layers' sums have come in.
  virtual void settle(LayerId layer) = 0;
  // The same for all layers: before a test, a snapshot and at the end.
  virtual void settle_all() = 0;

  // x Wᵀ + b for x [rows, inputs], W [outputs, inputs], b [outputs] or undefined. When the layer's scheme takes factors, its
  // backward pass hands over (output errors, x) and never forms the gradient of W.
  virtual at::Tensor linear(LayerId layer, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) = 0;

  // Shall the gradient of the layer's table be sparse (LayerParameters::touched_rows)?
  virtual bool takes_rows(LayerId /*layer*/) const { return false; }

  // What all workers give, by rank: for the few numbers of the global batch that a pass needs at once (moments, counts). `own` is of
  // kDouble, and of the same shape on all. Waits for all of them, so all must come to it in the same places. This default is that of an
  // exchange whose worker is alone.
  virtual std::vector<at::Tensor> gather(const at::Tensor& own) { return {own}; }
};

}  // namespace poseidon::aten
