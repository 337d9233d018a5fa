// The engine's session as a program from outside gets it: mistakes come back as errors, and every callback runs once.
//
// The engine ends the process over a wrong submission, since inside the house that is a mistake of ours; and when it is
// destroyed it forgets whom it has not called back. Here stands what a caller outside needs instead.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "poseidon/session.h"
#include "runtime/runtime.h"

namespace poseidon::library {

// Any thread. The engine and the lane are used until close(), which runs when both have gone; the model outlives this.
class CheckedSession final : public Session {
 public:
  CheckedSession(Session& engine, const Model& model, runtime::Runtime& lane);

  Rank rank() const override { return rank_; }
  int workers() const override { return workers_; }
  Scheme scheme(LayerId layer) const override;
  void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) override;
  void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) override;
  void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) override;
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) override {
    return engine_.allocate(bytes, device);
  }

  // The same three, for callers that want the mistake at once: with an error, on_synced is dropped without a call.
  Status try_submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced);
  Status try_submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced);
  Status try_submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced);

  // The engine and its lane have gone: calls back, on this thread, all who still wait.
  void close();

 private:
  // One tensor; for a factor layer, its weight stands for the layer.
  struct Slot {
    SyncedFn waiting;         // of the submission that is under way
    Iteration iteration = 0;  // of that one, or the last
    bool used = false;        // there was one
  };

  Status check_id(TensorId tensor) const;
  Status check_id(LayerId layer) const;
  Status check_is_dense(TensorId tensor) const;
  // Takes the tensor's slot for a submission; gives the callback that frees it.
  Result<SyncedFn> take_slot(TensorId tensor, Iteration iteration, SyncedFn on_synced);
  void call_back_later(const Status& mistake, Iteration iteration, SyncedFn on_synced);

  Session& engine_;
  const Model& model_;
  runtime::Runtime& lane_;
  const Rank rank_;
  const int workers_;
  std::vector<LayerId> layer_of_;  // by tensor
  std::mutex mutex_;
  std::vector<Slot> slots_;                         // by tensor; guarded by mutex_
  std::list<std::pair<SyncedFn, Synced>> refused_;  // on their way to the lane; guarded by mutex_
};

}  // namespace poseidon::library
