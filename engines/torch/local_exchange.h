// The exchange of a process that trains alone: every gradient is its own sum.
#pragma once

#include <optional>
#include <vector>

#include "engines/torch/gradient_exchange.h"

namespace poseidon::aten {

// Gradients are where autograd leaves them, in each parameter's .grad, and are dropped once the update has used them.
class LocalExchange final : public GradientExchange {
 public:
  LocalExchange(std::vector<LayerParameters> layers, UpdateFn update);

  int rank() const override { return 0; }
  int workers() const override { return 1; }

  // Throws std::logic_error where a layer's gradients of the iteration before the last were never settled: autograd
  // would add the next ones to them.
  void begin(Iteration iteration) override;
  // Nothing to do: autograd adds to each .grad until the update takes it.
  void accumulate(bool) override {}
  // Updates with what iterations before the present one have left.
  void settle(LayerId layer) override;
  // To be called outside of begin() and the end of its backward pass: settles the present iteration too.
  void settle_all() override;
  at::Tensor linear(LayerId layer, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) override;

 private:
  struct Due {
    std::optional<Iteration> earlier;  // an iteration whose backward pass is over, not yet settled
    std::optional<Iteration> present;  // the iteration that begin() named last, not yet settled
  };
  void update(std::size_t layer, Iteration iteration);

  std::vector<LayerParameters> layers_;
  UpdateFn update_;
  std::vector<Due> due_;  // per layer
};

}  // namespace poseidon::aten
