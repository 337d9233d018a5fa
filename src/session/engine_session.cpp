#include "session/engine_session.h"

#include <algorithm>

#include "base/aligned.h"
#include "base/check.h"
#include "base/text.h"

namespace poseidon::session {

using runtime::Region;
using wire::FrameType;
using wire::PartHeader;

namespace {

// A tensor's priority: its layer's place in the forward pass. Without priorities all are equal.
std::vector<std::uint32_t> layers_of(const Model& model, bool priorities) {
  std::vector<std::uint32_t> layer_of(model.tensors.size(), 0);
  if (!priorities) return layer_of;
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    for (const TensorId tensor : model.layers[l].tensors) layer_of[index(tensor)] = static_cast<std::uint32_t>(l);
  }
  return layer_of;
}

Status check_model(const Model& model) {
  for (const LayerSpec& layer : model.layers) {
    if (layer.factor_rows == 0) continue;
    const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
    if (weight.shape.size() != 2) {
      return Error{ErrorCode::kInvalid, base::concat("layer ", layer.name, " offers factors, but its weight is no matrix")};
    }
    for (const TensorId id : layer.tensors) {
      const TensorSpec& tensor = model.tensors[index(id)];
      if (tensor.dtype == weight.dtype) continue;
      // Both follow from the same factors, which have one type.
      return Error{ErrorCode::kInvalid, base::concat("layer ", layer.name, " offers factors, but ", tensor.name, " is ",
                                                     to_string(tensor.dtype), " and ", weight.name, " ", to_string(weight.dtype))};
    }
  }
  return {};
}

std::vector<Member> workers_of(const EngineOptions& options) {
  return {options.members.begin(), options.members.begin() + options.plan.workers};
}

// This lane's.
std::vector<std::vector<plan::Chunk>> chunks_of(const EngineOptions& options) {
  return options.share.deal ? options.share.deal->chunks_of(options.share.lane) : plan::partition(options.model, options.plan);
}

// The most that the workers may have in flight to this member.
std::size_t crossing_bytes_max(const EngineOptions& options) {
  const NodeWindows windows(options.plan);
  std::size_t bytes = 0;
  for (int worker = 0; worker < options.plan.workers; ++worker) {
    if (Rank{worker} != options.self) bytes += std::max(options.window_bytes, windows.bytes(Rank{worker}, options.self));
  }
  return bytes;
}

}  // namespace

Result<std::unique_ptr<EngineSession>> EngineSession::create(runtime::Runtime& runtime, runtime::Transport& transport,
                                                             runtime::Compute& compute, EngineOptions options) {
  if (const Status status = check_model(options.model); !status) return status.error();
  POSEIDON_CHECK(options.plan.layers.size() == options.model.layers.size(), "a plan of ", options.plan.layers.size(),
                 " layers for a model of ", options.model.layers.size());
  POSEIDON_CHECK(options.plan.nodes() == static_cast<int>(options.members.size()), "a plan for ", options.plan.nodes(),
                 " nodes, there are ", options.members.size());
  return std::unique_ptr<EngineSession>(new EngineSession(runtime, transport, compute, std::move(options)));
}

EngineSession::EngineSession(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute,
                             EngineOptions options)
    : runtime_(runtime), transport_(transport), options_(std::move(options)), events_(runtime, options_.events),
      layer_of_(layers_of(options_.model, options_.priorities)),
      chunks_(chunks_of(options_)),
      scheduler_(runtime, transport,
                 {.window_bytes = options_.window_bytes,
                  .tensors = options_.model.tensors.size(),
                  .own_windows = PeerWindows(options_.plan, options_.self, options_.members),
                  .events = options_.events,
                  .budget = options_.share.budget,
                  .lane = options_.share.lane}),
      store_(runtime, compute, scheduler_,
             {.self = options_.self,
              .members = workers_of(options_),
              .model = &options_.model,
              .layer_of = layer_of_,
              .chunks = &chunks_,
              .size_only = options_.size_only,
              .staging_bytes_max = options_.staging_bytes_max,
              // A member hears of a closing before it gets credit for what arrives after it, so what it had in flight is all.
              .crossing_bytes_max = crossing_bytes_max(options_),
              .tell = [this](const wire::GateNews& news) { tell(news); },
              .leaders = options_.leaders}),
      watch_(runtime, {options_.explain_after, options_.wait_max},
             {.longest = [this] { return longest_wait(); },
              .overdue = [this](runtime::Duration age, std::size_t count) { return overdue(age, count); },
              .give_up = [this](const Error& error) { fail(error); }}) {
  if (is_worker()) add_syncers(compute);
  install_acceptors();
}

EngineSession::~EngineSession() { *alive_ = false; }

void EngineSession::add_syncers(runtime::Compute& compute) {
  const Model& model = options_.model;
  const std::vector<Member> workers_only = workers_of(options_);
  dense_.resize(model.tensors.size());
  factors_.resize(model.layers.size());
  factors_of_weight_.resize(model.tensors.size(), nullptr);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const LayerSpec& layer = model.layers[l];
    if (layer.tensors.empty()) continue;
    const std::uint32_t place = layer_of_[index(layer.tensors[0])];
    if (scheme(LayerId{static_cast<std::uint32_t>(l)}) == Scheme::kPs) {
      for (const TensorId tensor : layer.tensors) {
        if (!lives_here(tensor)) continue;
        const TensorSpec& spec = model.tensors[index(tensor)];
        dense_[index(tensor)] = std::make_unique<DenseSyncer>(
            runtime_, transport_, scheduler_, store_,
            DenseSyncerOptions{options_.self, workers(), options_.members, tensor, spec.name, place, spec.bytes(), chunks_[index(tensor)],
                               options_.leaders});
      }
      continue;
    }
    if (!lives_here(layer.tensors[0])) continue;
    const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
    const std::size_t rows = static_cast<std::size_t>(weight.shape[0]);
    const std::size_t cols = static_cast<std::size_t>(weight.shape[1]);
    factors_[l] = std::make_unique<factor::FactorExchange>(
        runtime_, compute, scheduler_, transport_,
        factor::FactorExchangeOptions{
            .self = options_.self,
            .members = workers_only,
            .name = layer.name,
            .layer = place,
            .weight = layer.tensors[0],
            .bias = layer.tensors.size() > 1 ? std::optional(layer.tensors[1]) : std::nullopt,
            .dtype = weight.dtype,
            .rows = rows,
            .cols = cols,
            .batch_max = layer.factor_rows,
            .partition = plan::partition_factors(rows, cols, options_.plan.layers[l], workers()),
            .size_only = options_.size_only,
            .leaders = options_.leaders});
    factors_of_weight_[index(layer.tensors[0])] = factors_[l].get();
  }
}

void EngineSession::install_acceptors() {
  transport_.set_acceptor(FrameType::kPush, [this, alive = alive_](Member from, const PartHeader& part) -> Result<runtime::Sink> {
    if (!*alive) return Error{ErrorCode::kAborted, "the session is closed"};
    return store_.accept_push(from, part);
  });
  transport_.set_acceptor(FrameType::kFactor, [this, alive = alive_](Member from, const PartHeader& part) -> Result<runtime::Sink> {
    if (!*alive) return Error{ErrorCode::kAborted, "the session is closed"};
    const bool exists = index(part.tensor) < factors_of_weight_.size() && factors_of_weight_[index(part.tensor)] != nullptr;
    if (!exists) {
      return Error{ErrorCode::kCorruptFrame, base::concat("member ", index(from), " sent factors of tensor ", index(part.tensor),
                                                          ", which has none in this plan")};
    }
    return factors_of_weight_[index(part.tensor)]->accept_factor(from, part);
  });
  transport_.set_body_handler(FrameType::kGate, [this, alive = alive_](Member from, const wire::FrameHeader&, std::vector<std::byte> body) {
    if (*alive) hear(from, body);
  });
}

void EngineSession::tell(const wire::GateNews& news) {
  // Not by way of the scheduler: it is little, it is urgent, and the scheduler counts what gets credit back.
  const auto body = std::make_shared<std::vector<std::byte>>(wire::encode_gate(news));
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(workers()); ++rank) {
    if (rank == static_cast<std::size_t>(index(options_.self))) continue;
    runtime::Frame frame;
    frame.parts.push_back({.type = FrameType::kGate, .bytes = static_cast<std::uint32_t>(body->size())});
    frame.payload.push_back({Region{body->data(), body->size(), {}, 0}, 0, body->size()});
    transport_.send({options_.members[rank], runtime::Lane{0}}, std::move(frame), [body] {});
  }
}

void EngineSession::hear(Member from, std::span<const std::byte> body) {
  const auto rank = std::find(options_.members.begin(), options_.members.end(), from) - options_.members.begin();
  const Result<wire::GateNews> news = wire::decode_gate(body);
  if (!news) return fail(Error{news.error().code, base::concat("member ", index(from), ": ", news.error().message)});
  for (const wire::ChunkName& name : news->admitted) {
    const bool is_chunk = index(name.tensor) < chunks_.size() &&
                          std::any_of(chunks_[index(name.tensor)].begin(), chunks_[index(name.tensor)].end(), [&](const plan::Chunk& chunk) {
                            return chunk.begin == name.offset && index(chunk.server) == rank;
                          });
    if (!is_chunk) {
      return fail(Error{ErrorCode::kCorruptFrame,
                        base::concat("member ", index(from), " asks for the chunk at ", name.offset, " of tensor ",
                                     index(name.tensor), ", which the plan does not give it")});
    }
  }
  scheduler_.hear(from, *news);
}

Scheme EngineSession::scheme(LayerId layer) const {
  // Alone there is nobody to send factors to, and the local gradient is the sum.
  return workers() == 1 ? Scheme::kPs : options_.plan.layers[index(layer)].scheme;
}

void EngineSession::on_lane(runtime::Task task) {
  runtime_.post([alive = alive_, task = std::move(task)] {
    if (*alive) task();
  });
}

void EngineSession::submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  on_lane([this, tensor, iteration, gradient, on_synced = std::move(on_synced)]() mutable {
    submit_now(tensor, iteration, gradient, true, std::move(on_synced));
  });
}

void EngineSession::submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  on_lane([this, tensor, iteration, destination, on_synced = std::move(on_synced)]() mutable {
    submit_now(tensor, iteration, {.gradient = destination, .ready = {}, .samples = 0}, false, std::move(on_synced));
  });
}

void EngineSession::submit_now(TensorId tensor, Iteration iteration, const DenseGradient& gradient, bool present,
                               SyncedFn on_synced) {
  if (failed_) return on_synced({.error = failed_, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}});
  on_synced = events_.begin(tensor, iteration, gradient.gradient.bytes, std::move(on_synced));
  if (workers() == 1) {
    return on_synced({.error = std::nullopt,
                      .iteration = iteration,
                      .contributors = present ? 1u : 0u,
                      .samples = gradient.samples,
                      .ready = gradient.ready});
  }
  POSEIDON_CHECK(dense_[index(tensor)] != nullptr, options_.model.tensors[index(tensor)].name, " travels as factors");
  dense_[index(tensor)]->submit(iteration, gradient, present, std::move(on_synced));
}

void EngineSession::submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  on_lane([this, layer, iteration, gradient, on_synced = std::move(on_synced)]() mutable {
    if (failed_) return on_synced({.error = failed_, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}});
    POSEIDON_CHECK(factors_[index(layer)] != nullptr, options_.model.layers[index(layer)].name, " is synchronised densely");
    const TensorId weight = options_.model.layers[index(layer)].tensors[0];
    factors_[index(layer)]->submit(
        iteration, gradient, events_.begin(weight, iteration, gradient.outputs.bytes + gradient.inputs.bytes, std::move(on_synced)));
  });
}

Result<std::shared_ptr<std::byte>> EngineSession::allocate(std::size_t bytes, Device device) {
  if (device.kind != Device::Kind::kHost) {
    return Error{ErrorCode::kInvalid, "only host memory can be allocated for synchronisation now"};
  }
  try {
    return std::shared_ptr<std::byte>(base::make_aligned(bytes));
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kSystem, base::concat("out of memory: ", base::readable_bytes(static_cast<double>(bytes)),
                                                  " for gradients cannot be had")};
  }
}

void EngineSession::broadcast(std::vector<TensorView> values, std::function<void()> done) {
  POSEIDON_CHECK(values.size() == options_.model.tensors.size(), values.size(), " values");
  values_ = std::make_shared<ValueBroadcast>(transport_, scheduler_, workers_of(options_), options_.self);
  values_->start(values, layer_of_, std::move(done));
}

void EngineSession::fail(const Error& error) {
  if (failed_) return;
  failed_ = error;
  for (const auto& syncer : dense_) {
    if (syncer) syncer->fail(error);
  }
  for (const auto& exchange : factors_) {
    if (exchange) exchange->fail(error);
  }
}

std::vector<std::string> EngineSession::overdue(runtime::Duration age, std::size_t count) const {
  std::vector<std::string> sentences = store_.overdue(age, count);
  const auto add = [&](const std::optional<std::string>& sentence) {
    if (sentence && sentences.size() < count) sentences.push_back(*sentence);
  };
  const auto name = [&](Rank node) { return plan::node_name(node, workers(), options_.leaders); };
  for (const KeptBack& kept : scheduler_.kept_back()) {
    const runtime::Duration waited = runtime_.now() - kept.since;
    if (waited < age) continue;
    const auto rank = std::find(options_.members.begin(), options_.members.end(), kept.server) - options_.members.begin();
    add(base::concat(name(options_.self), " keeps ", kept.pushes, kept.pushes == 1 ? " push (" : " pushes (",
                     base::readable_bytes(static_cast<double>(kept.bytes)), ") back, because the server shard of ", name(Rank{static_cast<std::int32_t>(rank)}),
                     " is near its cap for staging and asks for other chunks first, since ",
                     base::readable_seconds(std::chrono::duration<double>(waited).count())));
  }
  for (const auto& exchange : factors_) {
    if (exchange) add(exchange->overdue(age));
  }
  for (const auto& syncer : dense_) {
    if (syncer) add(syncer->overdue(age));
  }
  return sentences;
}

runtime::Duration EngineSession::longest_wait() const {
  runtime::Duration longest{0};
  for (const auto& syncer : dense_) {
    if (syncer) longest = std::max(longest, syncer->waited());
  }
  for (const auto& exchange : factors_) {
    if (exchange) longest = std::max(longest, exchange->waited());
  }
  return longest;
}

}  // namespace poseidon::session
