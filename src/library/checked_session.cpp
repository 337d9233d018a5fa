#include "library/checked_session.h"

#include <utility>

#include "base/text.h"
#include "library/model_checks.h"

namespace poseidon::library {
namespace {

Error while_renewing() {
  return {ErrorCode::kInvalid, "a submission while the cluster goes over to another model: wait until its renewal has returned"};
}

}  // namespace

CheckedSession::CheckedSession(Session& engine, Model model, runtime::Runtime& lane)
    : engine_(engine), lane_(lane), rank_(engine.rank()), workers_(engine.workers()) {
  end_renewal(std::move(model), 0);
}

Status CheckedSession::begin_renewal() {
  const std::lock_guard lock(mutex_);
  for (std::size_t t = 0; t < slots_.size(); ++t) {
    if (!slots_[t].waiting) continue;
    return Error{ErrorCode::kInvalid,
                 base::concat("the sum of ", model_.tensors[t].name, " of iteration ", slots_[t].iteration,
                              " has not been called back: another model can be trained when all sums have")};
  }
  renewing_ = true;
  return {};
}

void CheckedSession::end_renewal(Model model, Iteration first) {
  const std::lock_guard lock(mutex_);
  model_ = std::move(model);
  layer_of_.resize(model_.tensors.size());
  for (std::size_t l = 0; l < model_.layers.size(); ++l) {
    for (const TensorId tensor : model_.layers[l].tensors) layer_of_[index(tensor)] = LayerId{static_cast<std::uint32_t>(l)};
  }
  first_ = first;
  for (Slot& slot : slots_) slot.used = false;
  slots_.resize(model_.tensors.size());
  renewing_ = false;
}

void CheckedSession::abandon_renewal() {
  const std::lock_guard lock(mutex_);
  renewing_ = false;
}

Status CheckedSession::check_id(TensorId tensor) const {
  if (renewing_) return while_renewing();
  if (index(tensor) < model_.tensors.size()) return {};
  return Error{ErrorCode::kInvalid,
               base::concat("there is no tensor ", index(tensor), ", the model has ", model_.tensors.size())};
}

Status CheckedSession::check_id(LayerId layer) const {
  if (renewing_) return while_renewing();
  if (index(layer) < model_.layers.size()) return {};
  return Error{ErrorCode::kInvalid, base::concat("there is no layer ", index(layer), ", the model has ", model_.layers.size())};
}

Status CheckedSession::check_is_dense(TensorId tensor) const {
  if (const Status status = check_id(tensor); !status) return status;
  const LayerId layer = layer_of_[index(tensor)];
  const Scheme used = engine_.scheme(layer);
  if (used == Scheme::kPs) return {};
  return Error{ErrorCode::kInvalid,
               base::concat("layer ", model_.layers[index(layer)].name, " travels by ", to_string(used),
                            ": submit its factors, not the gradient of ", model_.tensors[index(tensor)].name)};
}

Scheme CheckedSession::scheme(LayerId layer) const {
  const std::lock_guard lock(mutex_);
  // A layer that is not there can only be asked for by mistake; a submission for it then says so.
  return check_id(layer).ok() && !renewing_ ? engine_.scheme(layer) : Scheme::kPs;
}

Result<SyncedFn> CheckedSession::take_slot(TensorId tensor, Iteration iteration, SyncedFn on_synced) {
  Slot& slot = slots_[index(tensor)];
  const std::string& name = model_.tensors[index(tensor)].name;
  if (iteration < first_) {
    return Error{ErrorCode::kInvalid, base::concat(name, " was submitted for iteration ", iteration,
                                                   ", but the present model is trained from iteration ", first_, " on")};
  }
  if (slot.waiting) {
    return Error{ErrorCode::kInvalid, base::concat(name, " was submitted for iteration ", iteration,
                                                   " before the sum of iteration ", slot.iteration, " was called back")};
  }
  if (slot.used && iteration <= slot.iteration) {
    return Error{ErrorCode::kInvalid,
                 base::concat(name, " was submitted for iteration ", iteration, " after iteration ", slot.iteration)};
  }
  slot = {std::move(on_synced), iteration, true};
  // An empty function would count as nobody who waits.
  if (!slot.waiting) slot.waiting = [](const Synced&) {};
  return SyncedFn([this, &slot](const Synced& synced) {
    SyncedFn waiting;
    {
      const std::lock_guard callback_lock(mutex_);
      waiting = std::exchange(slot.waiting, nullptr);
    }
    waiting(synced);
  });
}

Result<SyncedFn> CheckedSession::claim(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  const std::lock_guard lock(mutex_);
  if (const Status status = check_is_dense(tensor); !status) return status.error();
  if (const Status status = check_dense(model_, tensor, gradient); !status) return status.error();
  return take_slot(tensor, iteration, std::move(on_synced));
}

Result<SyncedFn> CheckedSession::claim(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  const std::lock_guard lock(mutex_);
  if (const Status status = check_id(layer); !status) return status.error();
  if (engine_.scheme(layer) == Scheme::kPs) {
    return Error{ErrorCode::kInvalid, base::concat("layer ", model_.layers[index(layer)].name,
                                                   " travels by ps: submit the gradients of its tensors, not factors")};
  }
  if (const Status status = check_factors(model_, layer, gradient); !status) return status.error();
  return take_slot(model_.layers[index(layer)].tensors[0], iteration, std::move(on_synced));
}

Status CheckedSession::try_submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  Result<SyncedFn> callback = claim(tensor, iteration, gradient, std::move(on_synced));
  if (!callback) return callback.error();
  engine_.submit(tensor, iteration, gradient, std::move(*callback));
  return {};
}

Status CheckedSession::try_submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  Result<SyncedFn> callback = claim(tensor, iteration, {.gradient = destination, .ready = {}}, std::move(on_synced));
  if (!callback) return callback.error();
  engine_.submit_absent(tensor, iteration, destination, std::move(*callback));
  return {};
}

Status CheckedSession::try_submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient,
                                          SyncedFn on_synced) {
  Result<SyncedFn> callback = claim(layer, iteration, gradient, std::move(on_synced));
  if (!callback) return callback.error();
  engine_.submit_factors(layer, iteration, gradient, std::move(*callback));
  return {};
}

void CheckedSession::call_back_later(const Status& mistake, Iteration iteration, SyncedFn on_synced) {
  if (mistake || !on_synced) return;
  Synced refused;
  refused.error = mistake.error();
  refused.iteration = iteration;
  {
    const std::lock_guard lock(mutex_);
    refused_.emplace_back(std::move(on_synced), std::move(refused));
  }
  lane_.post([this] {
    std::list<std::pair<SyncedFn, Synced>> due;
    {
      const std::lock_guard lock(mutex_);
      due.swap(refused_);
    }
    for (const auto& [function, synced] : due) function(synced);
  });
}

void CheckedSession::submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  call_back_later(try_submit(tensor, iteration, gradient, on_synced), iteration, on_synced);
}

void CheckedSession::submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  call_back_later(try_submit_factors(layer, iteration, gradient, on_synced), iteration, on_synced);
}

void CheckedSession::submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  call_back_later(try_submit_absent(tensor, iteration, destination, on_synced), iteration, on_synced);
}

void CheckedSession::close() {
  std::list<std::pair<SyncedFn, Synced>> due;
  {
    const std::lock_guard lock(mutex_);
    due.swap(refused_);
    for (Slot& slot : slots_) {
      if (!slot.waiting) continue;
      Synced closed;
      closed.error = Error{ErrorCode::kAborted, "the cluster was closed before the sum had come"};
      closed.iteration = slot.iteration;
      due.emplace_back(std::exchange(slot.waiting, nullptr), std::move(closed));
    }
  }
  for (const auto& [function, synced] : due) function(synced);
}

}  // namespace poseidon::library
