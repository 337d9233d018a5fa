#include "host/host_engine.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "plan/hosts.h"

namespace poseidon::host {
namespace {

GroupOptions group_of(const HostEngineOptions& options) {
  const plan::HostPlace place = plan::host_place(options.plan, options.self);
  GroupOptions group;
  group.ranks = options.plan.hosts[place.group];
  for (const Rank rank : group.ranks) group.members.push_back(options.members[static_cast<std::size_t>(index(rank))]);
  group.self = place.place;
  group.alone = options.plan.hosts.size() == 1;
  return group;
}

}  // namespace

HostEngine::HostEngine(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute,
                       runtime::SharedMemory& memory, std::unique_ptr<session::Engine> network, HostEngineOptions options)
    : runtime_(runtime), transport_(transport), options_(std::move(options)), network_(std::move(network)),
      events_(runtime, network_ ? nullptr : options_.events),  // the leader's network session records its own
      group_(runtime, transport, compute, memory, group_of(options_)),
      watch_(runtime, {options_.explain_after, options_.wait_max},
             {.longest = [this] { return longest_wait(); },
              .overdue = [this](runtime::Duration age, std::size_t count) { return overdue(age, count); },
              .give_up = [this](const Error& error) { fail(error); }}) {
  POSEIDON_CHECK((network_ != nullptr) == (group_.leads() && !group_.alone()), "rank ", index(options_.self),
                 " has a network session only as the leader of a host among several");
  add_exchanges();
  transport_.set_body_handler(wire::FrameType::kHost,
                              [this, alive = alive_](Member from, const wire::FrameHeader&, std::vector<std::byte> body) {
                                if (*alive) on_message(from, body);
                              });
}

HostEngine::~HostEngine() {
  *alive_ = false;
  group_.work().clear();
  // It borrows gradients of the exchanges, perhaps on other lanes.
  network_.reset();
}

void HostEngine::add_exchanges() {
  const Model& model = options_.model;
  tensors_.resize(model.tensors.size());
  factors_.resize(model.layers.size());
  exchange_of_tensor_.resize(model.tensors.size(), nullptr);
  if (passes_on()) return;
  const auto exchange_options = [&](TensorId tensor, const std::string& name, std::size_t layer) {
    return ExchangeOptions{.tensor = tensor,
                           .name = name,
                           .layer = options_.priorities ? static_cast<std::uint32_t>(layer) : 0,
                           .network = network_.get(),
                           .on_error = [this](const Error& error) { fail(error); }};
  };
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const LayerSpec& layer = model.layers[l];
    const LayerId id{static_cast<std::uint32_t>(l)};
    if (scheme(id) == Scheme::kPs) {
      for (const TensorId tensor : layer.tensors) {
        const TensorSpec& spec = model.tensors[index(tensor)];
        tensors_[index(tensor)] =
            std::make_unique<HostTensor>(group_, exchange_options(tensor, spec.name, l), HostTensorOptions{spec.bytes(), spec.dtype});
        exchange_of_tensor_[index(tensor)] = tensors_[index(tensor)].get();
      }
      continue;
    }
    const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
    factors_[l] = std::make_unique<HostFactors>(group_, exchange_options(layer.tensors[0], layer.name, l),
                                                HostFactorsOptions{.layer = id,
                                                                   .rows = static_cast<std::size_t>(weight.shape[0]),
                                                                   .cols = static_cast<std::size_t>(weight.shape[1]),
                                                                   .batch_max = layer.factor_rows,
                                                                   .bias = layer.tensors.size() > 1,
                                                                   .dtype = weight.dtype,
                                                                   .workers = static_cast<std::uint32_t>(workers())});
    exchange_of_tensor_[index(layer.tensors[0])] = factors_[l].get();
  }
}

template <typename Visit>
void HostEngine::each_exchange(Visit visit) const {
  for (Exchange* const exchange : exchange_of_tensor_) {
    if (exchange != nullptr) visit(*exchange);
  }
}

void HostEngine::on_message(Member from, std::span<const std::byte> body) {
  const Result<wire::HostMessage> message = wire::decode_host_message(body);
  if (!message) return fail(Error{message.error().code, base::concat("from member ", index(from), ": ", message.error().message)});
  const std::size_t place = group_.place_of(from);
  if (place == group_.size() || place == group_.self()) {
    return fail(Error{ErrorCode::kCorruptFrame, base::concat("member ", index(from), " is of another host, and says what lies where in its memory")});
  }
  if (failed_) return;
  if (const Status status = take_message(place, *message); !status) fail(status.error());
}

Status HostEngine::take_message(std::size_t from, const wire::HostMessage& message) {
  const Error nothing{ErrorCode::kCorruptFrame, base::concat("rank ", index(group_.rank(from)), " of this host speaks of tensor ",
                                                            index(message.tensor), ", which is not combined in shared memory")};
  if (message.kind == wire::HostMessageKind::kValue || message.kind == wire::HostMessageKind::kValueTaken) {
    if (!broadcast_) return nothing;
    return broadcast_->on_message(from, message);
  }
  Exchange* const exchange = index(message.tensor) < exchange_of_tensor_.size() ? exchange_of_tensor_[index(message.tensor)] : nullptr;
  if (exchange == nullptr) return nothing;
  return exchange->on_message(from, message);
}

void HostEngine::on_lane(runtime::Task task) {
  runtime_.post([alive = alive_, task = std::move(task)] {
    if (*alive) task();
  });
}

void HostEngine::submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  if (passes_on()) return network_->submit(tensor, iteration, gradient, std::move(on_synced));
  on_lane([this, tensor, iteration, gradient, on_synced = std::move(on_synced)]() mutable {
    submit_now(tensor, iteration, gradient, true, std::move(on_synced));
  });
}

void HostEngine::submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  if (passes_on()) return network_->submit_absent(tensor, iteration, destination, std::move(on_synced));
  on_lane([this, tensor, iteration, destination, on_synced = std::move(on_synced)]() mutable {
    submit_now(tensor, iteration, {.gradient = destination, .ready = {}, .samples = 0}, false, std::move(on_synced));
  });
}

void HostEngine::submit_now(TensorId tensor, Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced) {
  if (failed_) return on_synced({.error = failed_, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}});
  POSEIDON_CHECK(tensors_[index(tensor)] != nullptr, options_.model.tensors[index(tensor)].name, " travels as factors");
  tensors_[index(tensor)]->submit(iteration, gradient, present,
                                  events_.begin(tensor, iteration, gradient.gradient.bytes, std::move(on_synced)));
}

void HostEngine::submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  if (passes_on()) {
    // All workers have handed in factors, if only of no rows; the network counts hosts.
    return network_->submit_factors(layer, iteration, gradient,
                                    [workers = workers(), on_synced = std::move(on_synced)](Synced synced) {
                                      if (!synced.error) synced.contributors = static_cast<std::uint32_t>(workers);
                                      on_synced(synced);
                                    });
  }
  on_lane([this, layer, iteration, gradient, on_synced = std::move(on_synced)]() mutable {
    if (failed_) return on_synced({.error = failed_, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}});
    POSEIDON_CHECK(factors_[index(layer)] != nullptr, options_.model.layers[index(layer)].name, " is synchronised densely");
    const TensorId weight = options_.model.layers[index(layer)].tensors[0];
    factors_[index(layer)]->submit(
        iteration, gradient, events_.begin(weight, iteration, gradient.outputs.bytes + gradient.inputs.bytes, std::move(on_synced)));
  });
}

Result<std::shared_ptr<std::byte>> HostEngine::allocate(std::size_t bytes, Device device) {
  if (passes_on()) return network_->allocate(bytes, device);
  if (device.kind != Device::Kind::kHost) {
    return Error{ErrorCode::kInvalid, "only host memory can be allocated for synchronisation now"};
  }
  return group_.memory().allocate(bytes);
}

void HostEngine::broadcast(std::vector<TensorView> values, std::function<void()> done) {
  POSEIDON_CHECK(values.size() == options_.model.tensors.size(), values.size(), " values");
  if (passes_on()) return network_->broadcast(std::move(values), std::move(done));
  // Over the network and within the host: `done` when both have ended.
  auto left = std::make_shared<int>(network_ ? 2 : 1);
  const auto one_done = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  broadcast_ = std::make_unique<Broadcast>(group_, values, one_done, [this](const Error& error) { fail(error); });
  const bool is_root = index(options_.self) == 0;
  if (!network_) {
    if (group_.leads()) broadcast_->start();
    return;
  }
  if (is_root) broadcast_->start();
  // The network's session may call back on another lane.
  network_->broadcast(std::move(values), [this, is_root, one_done, alive = alive_, &runtime = runtime_] {
    runtime.post([this, is_root, one_done, alive] {
      if (!*alive) return;
      if (!is_root) broadcast_->start();
      one_done();
    });
  });
}

void HostEngine::fail(const Error& error) {
  if (failed_) return;
  failed_ = error;
  group_.work().clear();
  if (network_) network_->fail(error);
  each_exchange([&](Exchange& exchange) { exchange.fail(error); });
}

std::vector<std::string> HostEngine::overdue(runtime::Duration age, std::size_t count) const {
  std::vector<std::string> sentences;
  const auto add = [&](const std::optional<std::string>& sentence) {
    if (sentence && sentences.size() < count) sentences.push_back(*sentence);
  };
  if (broadcast_) add(broadcast_->overdue(age));
  each_exchange([&](const Exchange& exchange) { add(exchange.overdue(age)); });
  if (network_) {
    for (const std::string& sentence : network_->overdue(age, count)) add(sentence);
  }
  return sentences;
}

session::EngineUse HostEngine::use() const {
  if (network_) return network_->use();
  return {.tensors = std::vector<session::TensorBytes>(options_.model.tensors.size()), .staging_bytes_max = 0};
}

runtime::Duration HostEngine::longest_wait() const {
  runtime::Duration longest{0};
  each_exchange([&](const Exchange& exchange) { longest = std::max(longest, exchange.waited()); });
  return longest;
}

}  // namespace poseidon::host
