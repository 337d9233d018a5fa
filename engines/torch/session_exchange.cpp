#include "engines/torch/session_exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
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

// Control messages are text, and what is long keeps the coordinator from all else, its heartbeats included: slices.
constexpr std::size_t kGatheredBytes = 64 * 1024;

// Rows travel as their numbers, 64 bits each, and then their elements.
std::size_t bytes_of_row(std::uint64_t columns, std::uint64_t width) { return sizeof(std::int64_t) + columns * width; }

std::shared_ptr<Bytes> packed_rows(const at::Tensor& sparse) {
  const at::Tensor rows = sparse.coalesce();  // each row once, by their numbers
  const at::Tensor numbers = rows.indices().select(0, 0).contiguous();
  const at::Tensor values = rows.values().contiguous();
  auto bytes = std::make_shared<Bytes>(numbers.nbytes() + values.nbytes());
  if (bytes->empty()) return bytes;
  std::memcpy(bytes->data(), numbers.const_data_ptr(), numbers.nbytes());
  std::memcpy(bytes->data() + numbers.nbytes(), values.const_data_ptr(), values.nbytes());
  return bytes;
}

void add_rows(Bytes& bytes, int rank, const std::string& name, at::Tensor& sum) {
  const auto columns = static_cast<std::uint64_t>(sum.size(1));
  const std::size_t row = bytes_of_row(columns, sum.element_size());
  const auto count = static_cast<std::int64_t>(bytes.size() / row);
  const at::Tensor numbers = at::from_blob(bytes.data(), {count}, at::kLong);
  const bool fits = bytes.size() % row == 0 && (numbers >= 0).logical_and(numbers < sum.size(0)).all().item<bool>();
  TORCH_CHECK(fits, "rank ", rank, " gives rows of ", name, " that it does not have");
  std::byte* const elements = bytes.data() + numbers.nbytes();
  const at::Tensor values = at::from_blob(elements, {count, sum.size(1)}, sum.options());
  sum.index_add_(0, numbers, values);
}

}  // namespace

std::uint64_t bytes_of_rows(int workers, std::uint64_t touched, std::uint64_t columns, std::uint64_t width) {
  const auto p = static_cast<std::uint64_t>(workers);
  return p * (p - 1) * (sizeof(std::uint64_t) + touched * bytes_of_row(columns, width));
}

bool rows_pay(int workers, std::uint64_t touched, std::uint64_t rows, std::uint64_t columns, std::uint64_t width) {
  const auto p = static_cast<std::uint64_t>(workers);
  return workers > 1 && 2 * bytes_of_rows(workers, touched, columns, width) <= 2 * (p - 1) * rows * columns * width;
}

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
    if (const std::size_t touched = layer.parameters.touched_rows; touched > 0 && options_.share) {
      const at::Tensor& table = layer.parameters.parameters[0];
      const auto extent = [&](std::int64_t axis) { return static_cast<std::uint64_t>(table.size(axis)); };
      if (rows_pay(session_.workers(), touched, extent(0), extent(1), table.element_size())) layer.rows = RowTraffic{};
    }
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
  if (is_table(slot)) return submit_rows(number, *iteration_);
  submit_dense(number, *iteration_);
}

// Of a table that no backward pass has reached there are no rows.
void SessionExchange::submit_rows(std::size_t number, Iteration iteration) {
  Slot& slot = slots_[number];
  Layer& layer = layers_[index(slot.layer)];
  const at::Tensor& table = layer.parameters.parameters[0];
  at::Tensor& gradient = table.mutable_grad();
  slot.own_rows = gradient.defined() ? packed_rows(gradient) : std::make_shared<Bytes>();
  gradient.reset();
  hand_in(slot, iteration, at::zeros_like(table));
  record(base::EventKind::kGradientReady, slot, iteration, slot.own_rows->size());
  const auto others = static_cast<std::uint64_t>(session_.workers() - 1);
  layer.rows->bytes_sent += others * (sizeof(std::uint64_t) + slot.own_rows->size());
  const auto columns = static_cast<std::uint64_t>(table.size(1));
  const std::size_t bytes_max = layer.parameters.touched_rows * bytes_of_row(columns, table.element_size());
  options_.share(iteration * layers_.size() + index(slot.layer), slot.own_rows, bytes_max,
                 [inbox = inbox_, number, iteration](Result<std::vector<Bytes>> all) {
                   {
                     const std::lock_guard lock(inbox->mutex);
                     Synced synced{.error = {}, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}};
                     if (!all) synced.error = all.error();
                     if (all) inbox->rows[number] = std::move(*all);
                     inbox->arrived.emplace_back(number, synced);
                   }
                   inbox->changed.notify_one();
                 });
}

std::pair<at::Tensor, std::uint32_t> SessionExchange::sum_of_rows(Slot& slot) {
  std::vector<Bytes> all;
  {
    const std::lock_guard lock(inbox_->mutex);
    all = std::move(inbox_->rows.extract(index(slot.tensor)).mapped());
  }
  Layer& layer = layers_[index(slot.layer)];
  all[static_cast<std::size_t>(rank())] = *slot.own_rows;
  std::uint32_t contributors = 0;
  for (std::size_t worker = 0; worker < all.size(); ++worker) {
    if (static_cast<int>(worker) != rank()) layer.rows->bytes_received += sizeof(std::uint64_t) + all[worker].size();
    if (all[worker].empty()) continue;
    ++contributors;
    add_rows(all[worker], static_cast<int>(worker), layer.parameters.name, slot.memory);
  }
  slot.own_rows.reset();
  return {slot.memory, contributors};
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
    if (is_table(slot)) {
      submit_rows(number, *finished_);
      continue;
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
  const auto* const bytes = static_cast<const std::byte*>(flat.const_data_ptr());
  std::vector<at::Tensor> tensors;
  for (int rank = 0; rank < workers(); ++rank) tensors.push_back(at::empty_like(flat));
  std::size_t begin = 0;
  do {
    const std::size_t size = std::min(kGatheredBytes, flat.nbytes() - begin);
    const Result<std::vector<std::string>> all = options_.gather(base::to_hex({bytes + begin, size}));
    if (!all) throw JobOver(all.error());
    for (std::size_t rank = 0; rank < all->size(); ++rank) {
      const std::optional<std::string> slice = base::from_hex((*all)[rank]);
      TORCH_CHECK(slice && slice->size() == size, "rank ", rank, " gathers something else than this one, which gathers ",
                  flat.numel(), " numbers");
      std::memcpy(static_cast<std::byte*>(tensors[rank].mutable_data_ptr()) + begin, slice->data(), size);
    }
    begin += size;
  } while (begin < flat.nbytes());
  return tensors;
}

void SessionExchange::update(std::size_t number, const Synced& synced) {
  Slot& slot = slots_[number];
  if (synced.error) throw JobOver(*synced.error);
  const c10::NoGradGuard no_graph;
  const auto [sum, contributors] = is_table(slot) ? sum_of_rows(slot) : std::pair(slot.memory, synced.contributors);
  update_({.layer = slot.layer,
           .parameter = slot.parameter,
           .iteration = synced.iteration,
           .sum = contributors > 0 ? sum : at::Tensor(),
           .contributors = contributors});
  record(base::EventKind::kUpdated, slot, synced.iteration, 0);
  slot.memory.reset();
  slot.outstanding = false;
}

}  // namespace poseidon::aten
