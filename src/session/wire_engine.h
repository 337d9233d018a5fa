// An engine whose gradients travel narrower than they are: float32 outside, bfloat16 or float16 on the wire.
//
// Within, it is an engine for a model of that other type (plan::model_on_wire), so nothing else knows of it: servers add 16-bit
// contributions in float32 and round once, owners multiply 16-bit factors in float32 and round once. Here a gradient is rounded
// into a buffer when it is handed in, and the sum is widened into the gradient's memory before the callback. The worker's own
// contribution is rounded as all others are, so every replica gets the same bits, whoever owns a chunk.
//
// What is not float32 passes through, and initial values are copied in full. The rules are in docs/schemes.md.
//
// Conversions are made on the lane, in steps (Conversions): the threads that hand in gradients have the next layer's to compute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "poseidon/session.h"
#include "runtime/runtime.h"
#include "session/conversions.h"
#include "session/engine.h"

namespace poseidon::session {

class WireEngine : public Engine {
 public:
  // `inner` is an engine for model_on_wire(model, ...); `priorities` as in its options. `runtime`, its lane, outlives this.
  WireEngine(runtime::Runtime& runtime, std::unique_ptr<Engine> inner, Model model, bool priorities);
  ~WireEngine() override;

  // `inner` itself where its plan narrows nothing, or there is nobody to send to; else a WireEngine around it.
  static std::unique_ptr<Engine> around(runtime::Runtime& runtime, std::unique_ptr<Engine> inner, const Model& model,
                                        bool priorities);

  Rank rank() const override { return inner_->rank(); }
  int workers() const override { return inner_->workers(); }
  Scheme scheme(LayerId layer) const override { return inner_->scheme(layer); }
  void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) override;
  // The factors' `hold` is released as soon as they have been narrowed.
  void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) override;
  void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) override;
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) override { return inner_->allocate(bytes, device); }

  const plan::Plan& plan() const override { return inner_->plan(); }
  void broadcast(std::vector<TensorView> values, std::function<void()> done) override {
    inner_->broadcast(std::move(values), std::move(done));
  }
  void fail(const Error& error) override;
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const override { return inner_->overdue(age, count); }
  EngineUse use() const override { return inner_->use(); }

  // Narrow buffers made so far, in use and spare: one for each tensor on its way, and for factors as many sets as peers have not
  // yet been sent.
  std::size_t buffer_bytes() const { return buffers_->bytes; }

 private:
  // Spare memory by size: the same sizes come again in every iteration.
  struct Buffers {
    std::multimap<std::size_t, base::AlignedBytes> spare;
    std::size_t bytes = 0;
  };
  using Buffer = std::shared_ptr<std::byte>;  // null: size-only, or nothing to keep

  bool narrows(TensorId tensor) const;
  // Memory for so many numbers on the wire; comes back, on the lane, when the last copy of the pointer is gone. Null for what is
  // size-only as `like` is.
  Buffer buffer(std::size_t elements, const TensorView& like);
  TensorView narrow_view(const TensorView& wide, const Buffer& buffer) const;
  Conversion narrowing(const TensorView& wide, const Buffer& buffer) const;
  Conversion widening(const TensorView& wide, const Buffer& buffer) const;
  Conversions::Urgency urgency(TensorId tensor, Iteration iteration) const;
  void submit_now(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced);
  void submit_factors_now(LayerId layer, Iteration iteration, FactorGradient gradient, SyncedFn on_synced);
  // The callback for the inner engine: widens the sum, then calls `on_synced`.
  SyncedFn widened(TensorId tensor, std::vector<Conversion> work, std::vector<Buffer> buffers, SyncedFn on_synced);
  // Runs on the lane, unless the engine is gone by then.
  void on_lane(runtime::Task task);

  runtime::Runtime& runtime_;
  Model model_;                          // the callers'
  DType wire_;
  std::vector<std::uint32_t> layer_of_;  // by tensor
  std::shared_ptr<Buffers> buffers_ = std::make_shared<Buffers>();
  Conversions conversions_;
  std::unique_ptr<Engine> inner_;        // goes first: it borrows buffers
  // Set to false on the lane by the destructor: tasks that were posted before look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::session
