// An engine for the workers of one host: they combine in shared memory first, so that their host pushes once.
//
// Every worker of a group has one. The first of the group, the leader, has inside it the engine that speaks over the network for
// all of them, where there are other hosts: its members are the leaders, and its model allows as many rows of factors as a whole
// group has (plan/hosts.h).
//
// submit*() and allocate() may be called from any thread; everything else on the lane.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event.h"
#include "host/broadcast.h"
#include "host/group.h"
#include "host/host_factors.h"
#include "host/host_tensor.h"
#include "session/engine.h"
#include "session/sync_events.h"
#include "session/wait_watch.h"

namespace poseidon::host {

struct HostEngineOptions {
  Rank self{0};
  std::vector<Member> members;            // of all workers, by rank
  Model model;
  plan::Plan plan;                        // for this model and as many workers, with groups
  bool priorities = true;                 // false: what is ready first is combined first
  base::EventListener* events = nullptr;  // may be null; outlives the engine
  // As for session::EngineOptions.
  runtime::Duration explain_after = std::chrono::seconds(2);
  runtime::Duration wait_max = std::chrono::minutes(30);
};

class HostEngine final : public session::Engine {
 public:
  // `network`: null but for the leader of a host among several. References outlive the engine.
  HostEngine(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute, runtime::SharedMemory& memory,
             std::unique_ptr<session::Engine> network, HostEngineOptions options);
  ~HostEngine() override;

  Rank rank() const override { return options_.self; }
  int workers() const override { return options_.plan.workers; }
  Scheme scheme(LayerId layer) const override { return options_.plan.layers[index(layer)].scheme; }
  void submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) override;
  void submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) override;
  void submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) override;
  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes, Device device) override;

  const plan::Plan& plan() const override { return options_.plan; }
  void broadcast(std::vector<TensorView> values, std::function<void()> done) override;
  void fail(const Error& error) override;
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const override;
  session::EngineUse use() const override;

 private:
  // Alone on its host, this worker has nobody to combine with: everything goes to the network as it is.
  bool passes_on() const { return group_.size() == 1; }
  void add_exchanges();
  void on_message(Member from, std::span<const std::byte> body);
  Status take_message(std::size_t from, const wire::HostMessage& message);
  void submit_now(TensorId tensor, Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced);
  void on_lane(runtime::Task task);
  runtime::Duration longest_wait() const;
  template <typename Visit>
  void each_exchange(Visit visit) const;

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  HostEngineOptions options_;
  std::unique_ptr<session::Engine> network_;
  const session::SyncEvents events_;
  Group group_;
  std::vector<std::unique_ptr<HostTensor>> tensors_;    // by tensor; null for tensors of factor layers
  std::vector<std::unique_ptr<HostFactors>> factors_;   // by layer; null for dense layers
  std::vector<Exchange*> exchange_of_tensor_;           // by tensor; null for a factor layer's bias
  std::unique_ptr<Broadcast> broadcast_;                // once begun
  std::optional<Error> failed_;
  session::WaitWatch watch_;
  // Set to false on the lane by the destructor: tasks that were posted before look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::host
