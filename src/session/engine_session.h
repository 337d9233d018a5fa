// The engine's Session on one lane: the send scheduler, this member's server shard, and a syncer for each tensor or factor
// layer, wired together as the plan says. A dedicated server's has the shard alone: there, nothing is submitted. Where a member has
// several lanes each has one, for its part of the model, and a LanedEngine is their common door.
//
// submit*() and allocate() may be called from any thread; everything else on the lane.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event.h"
#include "factor/factor_exchange.h"
#include "plan/lanes.h"
#include "plan/plan.h"
#include "poseidon/session.h"
#include "runtime/compute.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"
#include "session/dense_syncer.h"
#include "session/engine.h"
#include "session/send_scheduler.h"
#include "session/sync_events.h"
#include "session/value_broadcast.h"
#include "session/wait_watch.h"
#include "store/bsp_store.h"

namespace poseidon::session {

// One lane's part where a member has several. All null: one lane, which does everything.
struct LaneShare {
  std::size_t lane = 0;
  std::shared_ptr<const plan::LaneDeal> deal;  // for the engine's model and plan
  std::shared_ptr<LinkBudget> budget;          // shared by the member's lanes
};

struct EngineOptions {
  Rank self{0};                           // a node: from plan.workers on a dedicated server
  std::vector<Member> members;            // by node: the workers, then the dedicated servers; links to all of them are up
  Model model;
  plan::Plan plan;                        // for this model and as many nodes
  std::size_t window_bytes = 1 << 20;     // see SendSchedulerOptions
  std::size_t staging_bytes_max = store::kStagingBytesMax;  // cap of this member's server shard, see store/gate.h
  bool priorities = true;                 // false: what is ready first leaves first, whatever its layer
  bool size_only = false;                 // views have no memory: virtual time with models larger than memory
  base::EventListener* events = nullptr;  // may be null; outlives the session
  LaneShare share;
  std::vector<Rank> leaders = {};         // of hosts, where each member speaks for one: plan::node_name
  // A wait says whom it is for after the first, and ends the session after the second. The limit is long, because a peer may
  // well be busy for minutes (a test, a snapshot on a slow disk); dead peers are noticed by the cluster within 2 s.
  runtime::Duration explain_after = std::chrono::seconds(2);
  runtime::Duration wait_max = std::chrono::minutes(30);
};

class EngineSession : public Engine {
 public:
  // kInvalid when the model cannot be synchronised (a layer that offers factors of two types), naming the layer. References
  // outlive the session.
  static Result<std::unique_ptr<EngineSession>> create(runtime::Runtime& runtime, runtime::Transport& transport,
                                                       runtime::Compute& compute, EngineOptions options);
  ~EngineSession() override;

  Rank rank() const override { return options_.self; }
  int workers() const override { return options_.plan.workers; }
  Scheme scheme(LayerId layer) const override;
  void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) override;
  void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) override;
  void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) override;
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) override;

  const plan::Plan& plan() const override { return options_.plan; }
  void broadcast(std::vector<TensorView> values, std::function<void()> done) override;
  void fail(const Error& error) override;
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const override;
  EngineUse use() const override { return {scheduler_.tensor_bytes(), store_.staging_bytes_max()}; }
  // Also fails what waits, when a wait exceeds its limit. Runs by itself every second; public for tests.
  void watch() { watch_.look(); }

  SendScheduler& scheduler() { return scheduler_; }
  const EngineOptions& options() const { return options_; }
  std::size_t staging_bytes_max() const { return store_.staging_bytes_max(); }

 private:
  EngineSession(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute, EngineOptions options);
  bool is_worker() const { return index(options_.self) < workers(); }
  bool lives_here(TensorId tensor) const { return !options_.share.deal || options_.share.deal->lives_on(tensor, options_.share.lane); }
  void add_syncers(runtime::Compute& compute);
  void install_acceptors();
  // Says to all others what this member's shard takes, and hears it of theirs.
  void tell(const wire::GateNews& news);
  void hear(Member from, std::span<const std::byte> body);
  runtime::Duration longest_wait() const;
  // Runs on the lane, unless the session is gone by then.
  void on_lane(runtime::Task task);
  void submit_now(TensorId tensor, Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced);

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  EngineOptions options_;
  const SyncEvents events_;
  std::vector<std::uint32_t> layer_of_;  // by tensor
  std::vector<std::vector<plan::Chunk>> chunks_;  // by tensor
  SendScheduler scheduler_;
  std::shared_ptr<ValueBroadcast> values_;  // null before broadcast()
  store::BspStore store_;
  std::vector<std::unique_ptr<DenseSyncer>> dense_;               // by tensor; null for tensors of factor layers
  std::vector<std::unique_ptr<factor::FactorExchange>> factors_;  // by layer; null for dense layers
  std::vector<factor::FactorExchange*> factors_of_weight_;        // by tensor
  std::optional<Error> failed_;
  WaitWatch watch_;
  // Set to false on the lane by the destructor: tasks that were posted before look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::session
