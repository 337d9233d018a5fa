// The engine's session as a program from outside gets it: mistakes come back as errors, and every callback runs once.
//
// The engine ends the process over a wrong submission, since inside the house that is a mistake of ours; and when it is
// destroyed it forgets whom it has not called back. Here stands what a caller outside needs instead.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "poseidon/session.h"
#include "runtime/runtime.h"

namespace poseidon::library {

// Any thread. The engine and the lane are used until close(), which runs when both have gone.
class CheckedSession final : public Session {
 public:
  CheckedSession(Session& engine, Model model, runtime::Runtime& lane);

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

  // The engine is about to train another model (cluster::Worker::renew): from here on submissions are refused. kInvalid, naming the
  // tensor, where a sum is outstanding; then all is as it was.
  Status begin_renewal();
  // It does, from that iteration on: a model that check_renewal has passed. Each tensor's iterations begin anew.
  void end_renewal(Model model, Iteration first);
  // It does not: the job is over.
  void abandon_renewal();

  // The engine and its lane have gone: calls back, on this thread, all who still wait.
  void close();

 private:
  // One tensor; for a factor layer, its weight stands for the layer.
  struct Slot {
    SyncedFn waiting;         // of the submission that is under way
    Iteration iteration = 0;  // of that one, or the last
    bool used = false;        // there was one
  };

  // These with mutex_ held.
  Status check_id(TensorId tensor) const;
  Status check_id(LayerId layer) const;
  Status check_is_dense(TensorId tensor) const;
  // Takes the tensor's slot for a submission; gives the callback that frees it.
  Result<SyncedFn> take_slot(TensorId tensor, Iteration iteration, SyncedFn on_synced);

  // A dense submission's checks, and its slot.
  Result<SyncedFn> claim(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced);
  Result<SyncedFn> claim(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced);
  void call_back_later(const Status& mistake, Iteration iteration, SyncedFn on_synced);

  Session& engine_;
  runtime::Runtime& lane_;
  const Rank rank_;
  const int workers_;
  mutable std::mutex mutex_;  // guards all that follows
  Model model_;
  std::vector<LayerId> layer_of_;  // by tensor
  Iteration first_ = 0;            // of this model
  bool renewing_ = false;
  std::deque<Slot> slots_;         // by tensor; callbacks keep references to them
  std::list<std::pair<SyncedFn, Synced>> refused_;  // on their way to the lane
};

}  // namespace poseidon::library
