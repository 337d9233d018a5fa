// Tells a listener when a gradient was handed in and when its sum was there.
#pragma once

#include <utility>

#include "base/event.h"
#include "poseidon/session.h"
#include "runtime/runtime.h"

namespace poseidon::session {

// Lane only; outlives the callbacks that it has made.
class SyncEvents {
 public:
  // `listener` may be null. Both outlive this.
  SyncEvents(runtime::Runtime& runtime, base::EventListener* listener) : runtime_(runtime), listener_(listener) {}

  // `bytes`: as they were handed in. What on_synced becomes tells the end.
  SyncedFn begin(TensorId tensor, Iteration iteration, std::uint64_t bytes, SyncedFn on_synced) const {
    if (listener_ == nullptr) return on_synced;
    record(base::EventKind::kQueued, tensor, iteration, bytes);
    return [this, tensor, on_synced = std::move(on_synced)](const Synced& synced) {
      if (!synced.error) record(base::EventKind::kSynced, tensor, synced.iteration, 0);
      on_synced(synced);
    };
  }

 private:
  void record(base::EventKind kind, TensorId tensor, Iteration iteration, std::uint64_t bytes) const {
    listener_->record({kind, runtime_.now(), iteration, index(tensor), bytes, {}});
  }

  runtime::Runtime& runtime_;
  base::EventListener* listener_;
};

}  // namespace poseidon::session
