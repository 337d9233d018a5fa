// One engine made of several, each on a lane (event loop) of its own: every lane's does its part of the model, as
// plan::LaneDeal says, and this one hands each gradient to the lanes concerned and joins what they say.
//
// A gradient goes straight from the caller's thread to its lanes. The end of a tensor that lies on one lane is told there and
// posted home; of one that lies on several the last lane to finish posts it. So the callbacks run on the home lane (the first), and
// nothing on the way locks or waits. Only use(), overdue(), broadcast() and the destructor wait for the other lanes, which
// wait for nobody.
//
// What Session has may be called from any thread; everything else on the home lane.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "plan/lanes.h"
#include "runtime/runtime.h"
#include "session/engine.h"

namespace poseidon::session {

struct EngineLane {
  runtime::Runtime* runtime = nullptr;  // outlives the engine
  // Runs a task on the lane and returns when it is done. Called on the home lane only, and never for the home lane itself.
  std::function<void(const runtime::Task& task)> run;
  std::unique_ptr<Engine> engine;       // its part; made, used and destroyed on the lane
};

class LanedEngine : public Engine {
 public:
  // The home lane first; as many as `deal` deals to.
  LanedEngine(const Model& model, std::shared_ptr<const plan::LaneDeal> deal, std::vector<EngineLane> lanes);
  ~LanedEngine() override;

  Rank rank() const override { return home().rank(); }
  int workers() const override { return home().workers(); }
  Scheme scheme(LayerId layer) const override { return home().scheme(layer); }
  void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) override;
  void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) override;
  void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) override;
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) override { return home().allocate(bytes, device); }

  const plan::Plan& plan() const override { return home().plan(); }
  void broadcast(std::vector<TensorView> values, std::function<void()> done) override;
  void fail(const Error& error) override;
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const override;
  EngineUse use() const override;

 private:
  struct Join;

  Engine& home() const { return *lanes_.front().engine; }
  // Runs the task for each lane's engine, on its lane, one after the other.
  void for_each(const std::function<void(Engine& engine)>& task) const;
  // A callback for each of so many lanes, in their order, of which the last to be called ends the submission.
  std::vector<SyncedFn> parts_of(const std::vector<std::size_t>& lanes, SyncedFn on_synced);

  const std::shared_ptr<const plan::LaneDeal> deal_;
  std::vector<TensorId> weight_of_;  // by layer: the tensor that says where the layer lives
  std::vector<EngineLane> lanes_;
  // Set to false on the home lane by the destructor: what other lanes have posted there looks here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::session
