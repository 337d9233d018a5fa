// One worker process of a job, put together: lanes, TCP, membership and a session. What an engine uses to train in a cluster.
//
// The functions here are called by the thread that trains; they post to the lane and wait where they say so. Every wait ends
// when the job ends, since the cluster notices whoever could be waited for.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event.h"
#include "cluster/job_address.h"
#include "cluster/membership.h"
#include "cluster/worker_lanes.h"
#include "collective/mailbox.h"
#include "runtime/real/host_memory.h"
#include "runtime/real/lane.h"
#include "runtime/real/tcp_transport.h"
#include "session/engine_session.h"
#include "session/profile_window.h"
#include "session/replaceable_engine.h"
#include "store/gate.h"

namespace poseidon::cluster {

// What a worker must be able to do so that its job may go over to another plan between two iterations. Both are called by
// begin(), on its thread. After a begin() the layers' schemes may be others than before.
struct PlanChangeHooks {
  std::function<void()> settle;            // hands in what is missing of the last iteration, and waits for all sums; may throw
  std::function<double()> waited_seconds;  // of the forward passes so far, for sums
};

struct WorkerOptions {
  JobAddress job;
  Model model;
  Iteration first = 0;                            // the iteration that will begin first
  std::optional<PlanChangeHooks> plan_change_hooks;       // nothing: this worker keeps to the plan that it begins with
  // One for each tensor; rank 0's are copied to all before join() returns. Empty: nothing is copied.
  std::vector<TensorView> values;
  // For the first lane, which also makes the products of the others.
  std::function<std::unique_ptr<runtime::Compute>(runtime::Runtime& lane)> make_compute;
  base::EventListener* events = nullptr;          // outlives the worker
  HeartbeatOptions heartbeat;
  bool provisional = false;                       // the model is trained only until renew() brings a better one: densely, nothing is measured
  std::size_t lanes = 1;                          // event loops, at most plan::kLanesMax; the same at all workers
  bool pin_lanes = false;                         // each lane's thread to a core of its own: runtime::real::core_for_lane
  bool priorities = true;                         // this and the next: see session::EngineOptions
  std::size_t staging_bytes_max = store::kStagingBytesMax;
};

// A message to, or from, another worker. The memory is borrowed.
struct Letter {
  Rank rank{0};
  runtime::Region memory;
};

class Worker {
 public:
  // Joins the job and waits until everybody has started and the values have come.
  static Result<std::unique_ptr<Worker>> join(WorkerOptions options);
  // Closes the links. Without leave() before, the others take it for a death.
  ~Worker();
  // In a process that has been forked from the worker's: closes the links, which are the worker's alone and would look alive as long as
  // this process has them, and lets go of everything else without a word, since the threads that would have to end are in the other
  // process.
  static void forsake(std::unique_ptr<Worker> worker);

  Session& session() { return *engine_; }
  // The home lane: callbacks run here.
  runtime::Runtime& lane() { return *lane_; }
  bool is_on_lane() const { return lane_->is_current(); }
  // The plan in force.
  const plan::Plan& plan() const { return engine_->plan(); }

  // Waits while an agreement to stop is being settled, or all go over to another plan. False: all stop before this iteration, or the job is over (see error()).
  bool begin(Iteration iteration);
  // Trains another model from this iteration on, as all workers do: one whose tensors are those of the present one, and perhaps more
  // behind them; layers may be other ones. All sums of iterations before must have been called back. Waits for all workers, and until
  // rank 0's values have come: of the tensors that have a view with bytes in it, which must be the same ones on all workers. The links
  // are measured, and a plan is made, as after joining.
  Status renew(Model model, std::vector<TensorView> values, Iteration first);
  // A message to the application that runs the coordinator. Does not wait.
  void note(const std::string& body);
  // Gives every worker what all have given, by rank. For small things (scores, digests): it goes through the coordinator.
  // Waits for all; the error is what has ended the job instead.
  Result<std::vector<std::string>> gather(const std::string& own);
  // Messages to and from other workers, on the first lane, on which all of it is called.
  collective::Mailbox& mailbox() { return *mailbox_; }
  // The same for those who wait: messages that are all called by this name. Any thread but the lanes'. Returns when each is
  // out of, or in, its memory, also when the job ends.
  Status exchange(collective::MessageName name, std::span<const Letter> out, std::span<const Letter> in);
  // Waits until all have left. The error is what ended the job instead.
  Status leave();
  // This worker cannot go on, for a reason of its own. Returns when the coordinator has had time to hear it.
  void fail(const Error& why);
  // What has ended the job, if anything has.
  std::optional<Error> error() const;

  // What the engine has moved, and bytes with framing over all links, so far. Waits for the lane.
  struct Traffic {
    session::EngineUse engine;
    std::uint64_t bytes_sent = 0;
    std::uint64_t bytes_received = 0;
  };
  Traffic traffic();

 private:
  explicit Worker(WorkerOptions options);
  Status open();
  // The lanes beyond the first, where there are to be any, and the cores of all.
  Status open_lanes(const runtime::real::TcpOptions& tcp);
  void on_plan(const OpenEpoch& epoch, const UsePlan& use);
  Result<std::unique_ptr<session::Engine>> make_engine(const OpenEpoch& epoch, const UsePlan& use);
  // What speaks over the network, for this worker or for all of its host, and narrows what travels where the plan says so.
  Result<std::unique_ptr<session::Engine>> make_network(const OpenEpoch& epoch, const plan::Plan& plan, std::uint64_t window_bytes);
  // What combines with the other workers of this host. `network`: null but for the leader of a host among several.
  Result<std::unique_ptr<session::Engine>> make_host_engine(const OpenEpoch& epoch, plan::Plan plan, std::unique_ptr<session::Engine> network);
  // The iteration that began last is over, but for its sums.
  void observe(double waited_seconds);
  void end(const Error& why);
  // Waits until the condition, which others change under mutex_, holds or the job is over.
  template <typename Condition>
  Status wait(Condition condition);

  WorkerOptions options_;
  std::vector<int> descriptors_;                            // of the links and of what waits for them
  std::unique_ptr<runtime::real::HostMemory> memory_;       // null where the system gives none
  std::unique_ptr<runtime::real::RealLane> lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;  // these four: used and destroyed on the lane
  std::unique_ptr<runtime::Compute> compute_;
  std::unique_ptr<Membership> membership_;
  std::unique_ptr<session::ReplaceableEngine> engine_;
  std::unique_ptr<collective::Mailbox> mailbox_;            // from the first plan on; lane only
  std::unique_ptr<WorkerLanes> lanes_;  // null with one lane
  std::vector<Member> peers_;
  bool is_new_ = true;  // the model: its values are to come
  // For the profiles; lane only.
  struct Begun {
    Iteration iteration = 0;
    runtime::Time at{};
    double waited_seconds = 0;  // of all iterations before
  };
  bool watching_ = false;
  std::optional<Begun> begun_;
  session::ProfileWindow window_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;         // guarded by mutex_
  bool values_in_ = false;       // guarded by mutex_
  bool goodbye_ = false;         // guarded by mutex_
  bool settle_wanted_ = false;   // guarded by mutex_: begin() shall settle
  std::optional<bool> may_begin_;  // guarded by mutex_: the answer to begin()
  std::optional<std::vector<std::string>> gathered_;  // guarded by mutex_
  std::optional<Error> error_;   // guarded by mutex_
};

}  // namespace poseidon::cluster
