#include "engines/torch/local_exchange.h"

#include <ATen/ops/linear.h>
#include <c10/core/GradMode.h>

#include <stdexcept>
#include <utility>

namespace poseidon::aten {

LocalExchange::LocalExchange(std::vector<LayerParameters> layers, UpdateFn update)
    : layers_(std::move(layers)), update_(std::move(update)), due_(layers_.size()) {}

void LocalExchange::begin(Iteration iteration) {
  for (std::size_t i = 0; i < due_.size(); ++i) {
    if (due_[i].earlier) throw std::logic_error("the gradients of layer " + layers_[i].name + " were never settled");
    due_[i] = {.earlier = due_[i].present, .present = iteration};
  }
}

void LocalExchange::settle(LayerId layer) {
  Due& due = due_.at(index(layer));
  if (due.earlier) update(index(layer), *std::exchange(due.earlier, std::nullopt));
}

void LocalExchange::settle_all() {
  for (std::size_t i = 0; i < due_.size(); ++i) {
    settle(LayerId{static_cast<std::uint32_t>(i)});
    if (due_[i].present) update(i, *std::exchange(due_[i].present, std::nullopt));
  }
}

at::Tensor LocalExchange::linear(LayerId, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight, bias);
}

void LocalExchange::update(std::size_t layer, Iteration iteration) {
  const c10::NoGradGuard no_graph;
  std::vector<at::Tensor>& parameters = layers_[layer].parameters;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& gradient = parameters[i].mutable_grad();
    update_({.layer = LayerId{static_cast<std::uint32_t>(layer)},
             .parameter = i,
             .iteration = iteration,
             .sum = gradient,
             .contributors = gradient.defined() ? 1u : 0u});
    gradient.reset();
  }
}

}  // namespace poseidon::aten
