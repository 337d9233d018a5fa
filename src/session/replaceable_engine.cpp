#include "session/replaceable_engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace poseidon::session {
namespace {

EngineUse added(EngineUse a, const EngineUse& b) {
  a.tensors.resize(std::max(a.tensors.size(), b.tensors.size()));
  for (std::size_t t = 0; t < b.tensors.size(); ++t) {
    a.tensors[t].sent += b.tensors[t].sent;
    a.tensors[t].received += b.tensors[t].received;
  }
  a.staging_bytes_max = std::max(a.staging_bytes_max, b.staging_bytes_max);
  return a;
}

}  // namespace

ReplaceableEngine::ReplaceableEngine(runtime::Runtime& runtime, Rank self, int workers, const Model& model)
    : runtime_(runtime), self_(self), workers_(workers) {
  train(model);
}

void ReplaceableEngine::train(const Model& model) {
  POSEIDON_CHECK(!engine_, "another model while an engine trains the one before");
  layer_of_.assign(model.tensors.size(), 0);
  handed_in_.assign(model.layers.size(), std::nullopt);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    for (const TensorId tensor : model.layers[l].tensors) layer_of_[index(tensor)] = static_cast<std::uint32_t>(l);
  }
}

ReplaceableEngine::~ReplaceableEngine() { *alive_ = false; }

void ReplaceableEngine::retire() {
  if (!engine_) return;
  retired_ = added(std::move(retired_), engine_->use());
  last_plan_ = engine_->plan();
  engine_.reset();
}

void ReplaceableEngine::install(std::unique_ptr<Engine> engine) {
  POSEIDON_CHECK(!engine_, "an engine is installed over another");
  engine_ = std::move(engine);
  if (failed_) engine_->fail(*failed_);
}

std::vector<std::optional<runtime::Time>> ReplaceableEngine::handed_in_since(runtime::Time begin) const {
  std::vector<std::optional<runtime::Time>> times = handed_in_;
  for (std::optional<runtime::Time>& time : times) {
    if (time && *time <= begin) time.reset();
  }
  return times;
}

// The moment is the caller's, the note of it the lane's.
void ReplaceableEngine::keep_time(std::uint32_t layer) {
  if (!watching_) return;
  runtime_.post([this, alive = alive_, layer, now = runtime_.now()] {
    if (*alive) handed_in_[layer] = now;
  });
}

Scheme ReplaceableEngine::scheme(LayerId layer) const { return engine_ ? engine_->scheme(layer) : Scheme::kPs; }

void ReplaceableEngine::refuse(Iteration iteration, SyncedFn on_synced) {
  runtime_.post([error = failed_.value_or(Error{ErrorCode::kAborted, "there is no engine now"}), iteration, on_synced = std::move(on_synced)] {
    on_synced({.error = error, .iteration = iteration, .contributors = 0, .samples = 0, .ready = {}});
  });
}

void ReplaceableEngine::submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  if (!engine_) return refuse(iteration, std::move(on_synced));
  engine_->submit(tensor, iteration, gradient, std::move(on_synced));
  keep_time(layer_of_[index(tensor)]);
}

void ReplaceableEngine::submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  if (!engine_) return refuse(iteration, std::move(on_synced));
  engine_->submit_factors(layer, iteration, gradient, std::move(on_synced));
  if (gradient.rows > 0) keep_time(index(layer));
}

void ReplaceableEngine::submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  if (!engine_) return refuse(iteration, std::move(on_synced));
  engine_->submit_absent(tensor, iteration, destination, std::move(on_synced));
}

Result<std::shared_ptr<std::byte>> ReplaceableEngine::allocate(std::size_t bytes, Device device) {
  if (!engine_) return Error{ErrorCode::kAborted, "there is no engine to allocate memory"};
  return engine_->allocate(bytes, device);
}

void ReplaceableEngine::broadcast(std::vector<TensorView> values, std::function<void()> done) {
  POSEIDON_CHECK(engine_, "a broadcast without an engine");
  engine_->broadcast(std::move(values), std::move(done));
}

void ReplaceableEngine::fail(const Error& error) {
  if (!failed_) failed_ = error;
  if (engine_) engine_->fail(error);
}

std::vector<std::string> ReplaceableEngine::overdue(runtime::Duration age, std::size_t count) const {
  return engine_ ? engine_->overdue(age, count) : std::vector<std::string>();
}

EngineUse ReplaceableEngine::use() const { return engine_ ? added(retired_, engine_->use()) : retired_; }

}  // namespace poseidon::session
