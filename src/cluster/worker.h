// One worker process of a job, put together: a lane, TCP, membership and a session. What an engine uses to train in a cluster.
//
// The functions here are called by the thread that trains; they post to the lane and wait where they say so. Every wait ends
// when the job ends, since the cluster notices whoever could be waited for.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/event.h"
#include "cluster/membership.h"
#include "runtime/real/host_memory.h"
#include "runtime/real/lane.h"
#include "runtime/real/tcp_transport.h"
#include "session/engine_session.h"

namespace poseidon::cluster {

// How a worker finds its job: what launchers put into the environment.
//   POSEIDON_RANK, POSEIDON_WORLD_SIZE, POSEIDON_COORDINATOR (host:port), POSEIDON_SECRET_FILE
struct JobAddress {
  Rank rank{0};
  int workers = 1;
  runtime::Endpoint coordinator;
  std::vector<std::byte> secret;
};
// Nothing when POSEIDON_RANK is not set: no job. kInvalid, naming the variable, when the contract is broken.
Result<std::optional<JobAddress>> job_from_environment();

struct WorkerOptions {
  JobAddress job;
  Model model;
  // One for each tensor; rank 0's are copied to all before join() returns. Empty: nothing is copied.
  std::vector<TensorView> values;
  std::function<std::unique_ptr<runtime::Compute>(runtime::Runtime& lane)> make_compute;
  base::EventListener* events = nullptr;          // outlives the worker
  HeartbeatOptions heartbeat;
  bool priorities = true;                         // see session::EngineOptions
};

class Worker {
 public:
  // Joins the job and waits until everybody has started and the values have come.
  static Result<std::unique_ptr<Worker>> join(WorkerOptions options);
  // Closes the links. Without leave() before, the others take it for a death.
  ~Worker();

  Session& session() { return *engine_; }
  runtime::Runtime& lane() { return *lane_; }
  // The plan in force.
  const plan::Plan& plan() const { return engine_->plan(); }

  // Waits while an agreement to stop is being settled. False: all stop before this iteration, or the job is over (see error()).
  bool begin(Iteration iteration);
  // A message to the application that runs the coordinator. Does not wait.
  void note(const std::string& body);
  // Gives every worker what all have given, by rank. For small things (scores, digests): it goes through the coordinator.
  // Waits for all; the error is what has ended the job instead.
  Result<std::vector<std::string>> gather(const std::string& own);
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
  void on_plan(const OpenEpoch& epoch, const UsePlan& use);
  MemberInfo info(const std::string& address) const;
  Result<std::unique_ptr<session::Engine>> make_engine(const OpenEpoch& epoch, const UsePlan& use);
  // What speaks over the network: for this worker, or for all of its host.
  Result<std::unique_ptr<session::EngineSession>> make_network(const OpenEpoch& epoch, const plan::Plan& plan,
                                                               std::uint64_t window_bytes);
  void end(const Error& why);
  // Waits until the condition, which others change under mutex_, holds or the job is over.
  template <typename Condition>
  Status wait(Condition condition);

  WorkerOptions options_;
  std::unique_ptr<runtime::real::HostMemory> memory_;       // null where the system gives none
  std::unique_ptr<runtime::real::RealLane> lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;  // these four: used and destroyed on the lane
  std::unique_ptr<runtime::Compute> compute_;
  std::unique_ptr<Membership> membership_;
  std::unique_ptr<session::Engine> engine_;
  std::vector<Member> peers_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;         // guarded by mutex_
  bool values_in_ = false;       // guarded by mutex_
  bool goodbye_ = false;         // guarded by mutex_
  std::optional<std::vector<std::string>> gathered_;  // guarded by mutex_
  std::optional<Error> error_;   // guarded by mutex_
};

}  // namespace poseidon::cluster
