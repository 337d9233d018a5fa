// An engine that gives way to another between two iterations, for those who hold a reference to it.
//
// When a job goes over to another plan every worker's engine is destroyed and another one made: all sums of the iterations before
// have come everywhere, so there is nothing to hand over but the counts of bytes. In between, and after a failure, there may be
// none; submissions then end with an error.
//
// Where it is asked to, it also keeps the time at which each layer's gradient was handed in last, from which the layers' computing
// times follow (plan/profile.h).
//
// Threads as for Engine; retire(), install() and watch() on the lane, while nobody else uses the session.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "session/engine.h"

namespace poseidon::session {

class ReplaceableEngine final : public Engine {
 public:
  // The runtime outlives this.
  ReplaceableEngine(runtime::Runtime& runtime, Rank self, int workers, const Model& model);
  ~ReplaceableEngine() override;

  // Destroys the present engine, if there is one. By itself, since two engines cannot share a transport.
  void retire();
  void install(std::unique_ptr<Engine> engine);
  // What the engine to come trains, where that is another model. Only without one.
  void train(const Model& model);
  bool installed() const { return engine_ != nullptr; }

  // From now on it keeps the times, or no longer.
  void watch(bool on) { watching_ = on; }
  // By layer: when its last gradient was handed in, where that was after `begin`. Absences do not count. On the lane, after what
  // has been posted for the last submission.
  std::vector<std::optional<runtime::Time>> handed_in_since(runtime::Time begin) const;

  Rank rank() const override { return self_; }
  int workers() const override { return workers_; }
  Scheme scheme(LayerId layer) const override;
  void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) override;
  void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) override;
  void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) override;
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) override;

  // The last plan that was in force, where there is no engine now.
  const plan::Plan& plan() const override { return engine_ ? engine_->plan() : last_plan_; }
  void broadcast(std::vector<TensorView> values, std::function<void()> done) override;
  void fail(const Error& error) override;
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const override;
  // Of all engines so far.
  EngineUse use() const override;

 private:
  void refuse(Iteration iteration, SyncedFn on_synced);
  void keep_time(std::uint32_t layer);

  runtime::Runtime& runtime_;
  Rank self_;
  int workers_;
  std::vector<std::uint32_t> layer_of_;                  // by tensor
  bool watching_ = false;
  std::vector<std::optional<runtime::Time>> handed_in_;  // by layer; lane only
  std::unique_ptr<Engine> engine_;
  plan::Plan last_plan_;
  EngineUse retired_;            // of the engines before the present one
  std::optional<Error> failed_;
  // Tasks that were posted before look here first. Lane only, but for copies of the pointer.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::session
