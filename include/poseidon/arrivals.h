// Where the thread that trains picks up the sums that have arrived.
//
// A Session calls back on its lane, where nothing may wait and no optimiser step should be made. An Arrivals stands between:
// hand `expect(key)` to submit(), go on computing, and `wait(key)` where the next forward pass needs the sum.
//
//   session.submit(weight, iteration, gradient, arrivals.expect(index(weight)));
//   ...
//   const Synced synced = arrivals.wait(index(weight));
//
// Any thread may call any function. The callbacks may outlive the Arrivals: they share its state.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "poseidon/session.h"

namespace poseidon {

class Arrivals {
 public:
  // A callback for one submission. `key` is the caller's own name for it: the tensor's id, say. A key is used again only after
  // its last sum has been taken by wait().
  SyncedFn expect(std::uint32_t key) {
    const std::lock_guard lock(state_->mutex);
    state_->sums.insert_or_assign(key, std::nullopt);
    return [state = state_, key](const Synced& synced) {
      {
        const std::lock_guard callback_lock(state->mutex);
        state->sums.insert_or_assign(key, synced);
      }
      state->changed.notify_all();
    };
  }

  // Waits for the sum that expect(key) was for, and takes it. The wait ends also when the job does, or the Cluster is closed:
  // then `error` is set. A key that nothing was submitted under is an error too, kInvalid, and is not waited for.
  Synced wait(std::uint32_t key) {
    std::unique_lock lock(state_->mutex);
    auto found = state_->sums.find(key);
    if (found == state_->sums.end()) {
      Synced nothing;
      nothing.error = Error{ErrorCode::kInvalid, "a wait for a sum under a key that nothing was submitted under"};
      return nothing;
    }
    state_->changed.wait(lock, [&] { return found->second.has_value(); });
    const Synced synced = *found->second;
    state_->sums.erase(found);
    return synced;
  }

  // Would wait(key) return at once? No promise for a sum that another thread takes meanwhile.
  bool has(std::uint32_t key) const {
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->sums.find(key);
    return found != state_->sums.end() && found->second.has_value();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::uint32_t, std::optional<Synced>> sums;  // guarded by mutex; no value: it has not arrived
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace poseidon
