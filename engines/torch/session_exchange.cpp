#include "engines/torch/session_exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/checksum.h"
#include "base/hex.h"
#include "engines/torch/tensor_view.h"

namespace poseidon::aten {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// The rows of all, in their order; empties the list.
at::Tensor joined(std::vector<at::Tensor>& parts) {
  const std::vector<at::Tensor> all = std::exchange(parts, {});
  return all.size() == 1 ? all[0] : at::cat(all);
}

}  // namespace

// Runs after autograd has written a parameter's .grad, once per backward pass.
class SessionExchange::AccumulatorHook : public torch::autograd::FunctionPostHook {
 public:
  AccumulatorHook(SessionExchange& exchange, std::size_t slot, std::shared_ptr<bool> alive)
      : exchange_(exchange), slot_(slot), alive_(std::move(alive)) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    if (*alive_) exchange_.on_gradient(slot_);
    return outputs;
  }

 private:
  SessionExchange& exchange_;
  std::size_t slot_;
  std::shared_ptr<bool> alive_;  // read by the training thread, which also ends the exchange
};

// x Wᵀ + b whose backward pass gives away the factors of W's gradient instead of multiplying them.
struct SessionExchange::FactorLinear : public torch::autograd::Function<FactorLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            SessionExchange* exchange, std::int64_t layer) {
    context->save_for_backward({x, weight});
    context->saved_data["exchange"] = reinterpret_cast<std::int64_t>(exchange);
    context->saved_data["layer"] = layer;
    context->saved_data["x_needs_gradient"] = x.requires_grad();
    return at::linear(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor errors = gradients[0].contiguous();
    auto* const exchange = reinterpret_cast<SessionExchange*>(context->saved_data["exchange"].toInt());
    // First the factors, so that they travel while the product below is made.
    const LayerId layer{static_cast<std::uint32_t>(context->saved_data["layer"].toInt())};
    exchange->on_factors(layer, exchange->iteration_.value(), errors, saved[0]);
    at::Tensor x_gradient;
    if (context->saved_data["x_needs_gradient"].toBool()) x_gradient = at::mm(errors, saved[1]);
    return {x_gradient, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

SessionExchange::SessionExchange(Session& session, std::vector<LayerParameters> layers, UpdateFn update,
                                 SessionExchangeOptions options)
    : session_(session), update_(std::move(update)), options_(options) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerId id{static_cast<std::uint32_t>(l)};
    Layer layer{.parameters = std::move(layers[l]),
                .first_slot = slots_.size(),
                .factors = false,
                .wait_span = "",
                .weight_sum = {},
                .bias_sum = {}};
    layer.wait_span = "wait " + layer.parameters.name;
    for (std::size_t p = 0; p < layer.parameters.parameters.size(); ++p) {
      const std::size_t slot = slots_.size();
      auto accumulator = torch::autograd::impl::grad_accumulator(layer.parameters.parameters[p]);
      accumulator->add_post_hook(std::make_unique<AccumulatorHook>(*this, slot, alive_));
      slots_.push_back(Slot{.layer = id,
                        .parameter = p,
                        .tensor = TensorId{static_cast<std::uint32_t>(slot)},
                        .outstanding = false,
                        .handed_in = {},
                        .memory = {},
                        .accumulator = std::move(accumulator)});
    }
    layers_.push_back(std::move(layer));
  }
  follow_plan();
}

SessionExchange::~SessionExchange() { *alive_ = false; }

void SessionExchange::record(base::EventKind kind, const Slot& slot, Iteration iteration, std::uint64_t bytes) {
  if (options_.events == nullptr) return;
  options_.events->record({kind, std::chrono::steady_clock::now().time_since_epoch(), iteration, index(slot.tensor), bytes, {}});
}

void SessionExchange::record_span(base::EventKind kind, const std::string& name) {
  if (options_.events == nullptr) return;
  options_.events->record({kind, std::chrono::steady_clock::now().time_since_epoch(), iteration_.value_or(0), 0, 0, name});
}

void SessionExchange::begin(Iteration iteration) {
  follow_plan();
  if (iteration_) finished_ = iteration_;
  iteration_ = iteration;
  accumulating_ = false;
}

void SessionExchange::follow_plan() {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    const bool factors = session_.scheme(LayerId{static_cast<std::uint32_t>(l)}) != Scheme::kPs;
    if (factors == layer.factors) continue;
    TORCH_CHECK(is_settled(layer), "another plan for ", layer.parameters.name, " before its last gradient was settled");
    layer.factors = factors;
    layer.weight_sum = factors ? at::empty_like(layer.parameters.parameters[0]) : at::Tensor();
    if (layer.parameters.parameters.size() > 1) layer.bias_sum = factors ? at::empty_like(layer.parameters.parameters[1]) : at::Tensor();
  }
}

void SessionExchange::hand_in(Slot& slot, Iteration iteration, at::Tensor memory) {
  TORCH_CHECK(!slot.outstanding, "a second gradient of ", layers_[index(slot.layer)].parameters.parameter_names[slot.parameter],
              " before the first was settled");
  slot.outstanding = true;
  slot.handed_in = iteration;
  slot.memory = std::move(memory);
}

// For a sum that serves `slots` parameters from `first_slot` on: runs on the engine's lane.
SyncedFn SessionExchange::callback(std::size_t first_slot, std::size_t slots) {
  return [inbox = inbox_, first_slot, slots](const Synced& synced) {
    {
      const std::lock_guard lock(inbox->mutex);
      for (std::size_t i = 0; i < slots; ++i) inbox->arrived.emplace_back(first_slot + i, synced);
    }
    inbox->changed.notify_one();
  };
}

void SessionExchange::on_gradient(std::size_t number) {
  Slot& slot = slots_[number];
  Layer& layer = layers_[index(slot.layer)];
  at::Tensor& gradient = layer.parameters.parameters[slot.parameter].mutable_grad();
  // A factor layer's accumulators run too, with nothing in them.
  if (!gradient.defined() || accumulating_) return;
  TORCH_CHECK(iteration_, "a gradient of ", layer.parameters.name, " before begin()");
  submit_dense(number, *iteration_);
}

void SessionExchange::submit_dense(std::size_t number, Iteration iteration) {
  Slot& slot = slots_[number];
  at::Tensor& gradient = layers_[index(slot.layer)].parameters.parameters[slot.parameter].mutable_grad();
  hand_in(slot, iteration, gradient.contiguous());
  // Ours from here: autograd finds no .grad next time, and gives its new gradient without adding.
  gradient.reset();
  record(base::EventKind::kGradientReady, slot, iteration, slot.memory.nbytes());
  session_.submit(slot.tensor, iteration, {.gradient = view_of(slot.memory), .ready = {}, .samples = options_.samples},
                  callback(number, 1));
}

void SessionExchange::on_factors(LayerId id, Iteration iteration, at::Tensor outputs, at::Tensor inputs) {
  Layer& layer = layers_[index(id)];
  layer.kept_outputs.push_back(std::move(outputs));
  layer.kept_inputs.push_back(inputs.contiguous());
  if (!accumulating_) submit_factors(id, iteration);
}

void SessionExchange::submit_factors(LayerId id, Iteration iteration) {
  Layer& layer = layers_[index(id)];
  Slot& weight = slots_[layer.first_slot];
  const at::Tensor outputs = joined(layer.kept_outputs);
  const at::Tensor inputs = joined(layer.kept_inputs);
  const bool has_bias = layer.bias_sum.defined();
  hand_in(weight, iteration, layer.weight_sum);
  if (has_bias) hand_in(slots_[layer.first_slot + 1], iteration, layer.bias_sum);
  record(base::EventKind::kGradientReady, weight, iteration, outputs.nbytes() + inputs.nbytes());
  const FactorGradient gradient{.outputs = view_of(outputs),
                                .inputs = view_of(inputs),
                                .rows = static_cast<std::size_t>(outputs.size(0)),
                                .hold = std::make_shared<std::pair<at::Tensor, at::Tensor>>(outputs, inputs),
                                .weight = view_of(layer.weight_sum),
                                .bias = has_bias ? view_of(layer.bias_sum) : TensorView{},
                                .ready = {},
                                .samples = options_.samples};
  session_.submit_factors(id, iteration, gradient, callback(layer.first_slot, has_bias ? 2 : 1));
}

// Parameters that the last backward pass has not reached: the others must not wait for them.
void SessionExchange::hand_in_missing(LayerId id) {
  Layer& layer = layers_[index(id)];
  for (std::size_t p = 0; p < layer.parameters.parameters.size(); ++p) {
    const std::size_t number = layer.first_slot + p;
    Slot& slot = slots_[number];
    if (!finished_ || (slot.handed_in && *slot.handed_in >= *finished_)) continue;
    const at::Tensor& parameter = layer.parameters.parameters[p];
    if (layer.factors) {
      if (layer.kept_outputs.empty()) {
        const at::TensorOptions options = parameter.options().requires_grad(false);
        layer.kept_outputs.push_back(at::empty({0, parameter.size(0)}, options));
        layer.kept_inputs.push_back(at::empty({0, parameter.size(1)}, options));
      }
      return submit_factors(id, *finished_);
    }
    // Reached by an earlier batch of the iteration, but not by its last.
    if (parameter.grad().defined()) {
      submit_dense(number, *finished_);
      continue;
    }
    hand_in(slot, *finished_, at::zeros_like(parameter));
    session_.submit_absent(slot.tensor, *finished_, view_of(slot.memory), callback(number, 1));
  }
}

bool SessionExchange::is_settled(const Layer& layer) const {
  for (std::size_t p = 0; p < layer.parameters.parameters.size(); ++p) {
    if (slots_[layer.first_slot + p].outstanding) return false;
  }
  return true;
}

std::pair<std::size_t, Synced> SessionExchange::take_arrived(LayerId preferred) {
  std::unique_lock lock(inbox_->mutex);
  auto& arrived = inbox_->arrived;
  if (arrived.empty()) {
    const std::string& span = layers_[index(preferred)].wait_span;
    const auto start = std::chrono::steady_clock::now();
    record_span(base::EventKind::kSpanBegin, span);
    // Bounded by the session, which gives every submission an answer, and an error where a wait is too long.
    inbox_->changed.wait(lock, [&] { return !arrived.empty(); });
    record_span(base::EventKind::kSpanEnd, span);
    wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  auto found = std::find_if(arrived.begin(), arrived.end(), [&](const auto& item) { return slots_[item.first].layer == preferred; });
  if (found == arrived.end()) found = arrived.begin();
  std::pair<std::size_t, Synced> item = std::move(*found);
  arrived.erase(found);
  return item;
}

void SessionExchange::settle(LayerId id) {
  hand_in_missing(id);
  while (!is_settled(layers_[index(id)])) {
    const auto [slot, synced] = take_arrived(id);
    update(slot, synced);
  }
}

void SessionExchange::settle_all() {
  finished_ = iteration_;
  for (std::size_t l = 0; l < layers_.size(); ++l) settle(LayerId{static_cast<std::uint32_t>(l)});
}

at::Tensor SessionExchange::linear(LayerId layer, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!layers_[index(layer)].factors) return at::linear(x, weight, bias);
  return FactorLinear::apply(x, weight, bias, this, static_cast<std::int64_t>(index(layer)));
}

std::vector<at::Tensor> SessionExchange::gather(const at::Tensor& own) {
  if (workers() == 1) return {own};
  TORCH_CHECK(options_.gather && own.scalar_type() == at::kDouble, "this exchange has no way to gather, or not this type");
  const at::Tensor flat = own.contiguous();
  // Control messages carry text only.
  const Result<std::vector<std::string>> all =
      options_.gather(base::to_hex({static_cast<const std::byte*>(flat.const_data_ptr()), flat.nbytes()}));
  if (!all) throw JobOver(all.error());
  std::vector<at::Tensor> tensors;
  for (std::size_t rank = 0; rank < all->size(); ++rank) {
    const std::optional<std::string> bytes = base::from_hex((*all)[rank]);
    TORCH_CHECK(bytes && bytes->size() == flat.nbytes(), "rank ", rank, " gathers something else than this one, which gathers ", flat.numel(), " numbers");
    tensors.push_back(at::empty_like(flat));
    std::memcpy(tensors.back().mutable_data_ptr(), bytes->data(), bytes->size());
  }
  return tensors;
}

void SessionExchange::update(std::size_t number, const Synced& synced) {
  Slot& slot = slots_[number];
  if (synced.error) throw JobOver(*synced.error);
  const c10::NoGradGuard no_graph;
  update_({.layer = slot.layer,
           .parameter = slot.parameter,
           .iteration = synced.iteration,
           .sum = synced.contributors > 0 ? slot.memory : at::Tensor(),
           .contributors = synced.contributors});
  record(base::EventKind::kUpdated, slot, synced.iteration, 0);
  slot.memory.reset();
  slot.outstanding = false;
}

}  // namespace poseidon::aten
