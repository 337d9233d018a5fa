// A member's side of the job, be it a worker or a dedicated server: join, link up, measure, install the plan, start, go over to
// another plan; for workers also stop together and leave.
//
// Lane only. Answers the coordinator; what the plan means for the engine is the listener's business.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/compute_probe.h"
#include "cluster/link_probe.h"
#include "cluster/messages.h"
#include "cluster/silence.h"
#include "runtime/compute.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::cluster {

struct MembershipOptions {
  MemberInfo self;                                 // with the endpoints that this member listens on
  int workers = 1;
  int servers = 0;                                 // dedicated ones
  std::vector<runtime::Endpoint> coordinator;
  Model model;                                     // a dedicated server has none: the plan brings it
  Iteration first = 0;                             // the iteration that will begin first
  bool replans = false;                            // can go over to another plan between two iterations
  bool provisional = false;                        // renew() comes later
  HeartbeatOptions heartbeat;
  runtime::Duration connect_max = std::chrono::seconds(30);
  // After the link to a peer broke: the coordinator says what becomes of the job, or else it is over.
  runtime::Duration verdict_max = std::chrono::seconds(2);
};

struct MembershipListener {
  // The members are linked and agree on a plan. Install it (sinks and acceptors), then call ready(). Comes again when a plan has
  // ended; by then all sums of iterations before have come everywhere, and nothing is on its way.
  std::function<void(const OpenEpoch& epoch, const UsePlan& plan)> on_plan;
  // Everybody is ready for the first time, or for the first time after renew(): data may be sent.
  std::function<void()> on_start;
  // The iteration that wants to begin is the first of another plan: hand in what is missing, wait for all sums, then call
  // settled(). It begins when all have the other plan. Empty: there is nothing to settle.
  std::function<void()> on_settle;
  // What all workers gave to the gathering, by rank.
  std::function<void(const std::vector<std::string>& bodies)> on_gathered;
  // Every worker has left: the links may be closed.
  std::function<void()> on_goodbye;
  // The job is over because of this. Called at most once.
  std::function<void(const Error& why)> on_fail;
};

class Membership {
 public:
  // Takes the transport's listener, its control frames and its probes. All outlive the membership.
  Membership(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute, MembershipOptions options,
             MembershipListener listener);
  ~Membership();

  void join();
  void ready();
  void settled();
  // Trains another model from that iteration on, as all workers do: on_plan and on_start come again. All sums of iterations before
  // have come, and no begin() waits.
  void renew(Renew renewal);
  void tell_profile(const plan::Profile& profile);
  void note(const std::string& body);
  // Gives this worker's part to the next gathering. All workers gather in the same order, each one at a time.
  void gather(const std::string& body);
  void leave();
  // This member cannot go on: tells the coordinator, who stops everybody.
  void fail(const Error& why);

  // May this iteration begin? `then(true)` runs when it may, `then(false)` when all stop before it; at once, unless a pause has
  // to be agreed on first or another plan begins with it. One at a time.
  void begin(Iteration iteration, std::function<void(bool go)> then);

  bool failed() const { return failed_; }

 private:
  void on_up(Member peer);
  void on_down(Member peer, const Error& why);
  void on_message(const Message& message);
  void on_epoch(const OpenEpoch& epoch);
  void linked_if_all_up();
  void on_start();
  void on_measure(const Measure& request);
  void measure_link(std::uint32_t shift);
  void answer_pause(std::uint64_t number);
  void settle_begin();
  // Whether this worker has begun an iteration that one who has left will not.
  bool fail_if_alone();
  void end(const Error& why);
  void tick();
  void tell(const Message& message) { send(transport_, runtime::kCoordinator, message); }
  static bool is_coordinator(Member peer) { return peer == runtime::kCoordinator; }

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  runtime::Compute& compute_;
  MembershipOptions options_;
  MembershipListener listener_;
  LinkProbe link_probe_;
  SilenceDetector silence_;
  runtime::TimerId timer_{};
  std::optional<ComputeSpeed> compute_speed_;
  bool coordinator_up_ = false;
  std::optional<OpenEpoch> epoch_;
  std::set<Member> up_;
  bool told_linked_ = false;
  std::uint64_t gatherings_ = 0;
  bool left_ = false;
  std::optional<Left> gone_;                // who has left first, in iterations
  bool goodbye_ = false;
  bool failed_ = false;

  // The agreements to stop, and to go over to another plan.
  Iteration next_ = 0;                      // the first iteration that has not begun
  bool paused_ = false;
  std::optional<Iteration> limit_;          // begins nothing beyond it while paused
  std::optional<Iteration> last_;           // the last iteration of all
  std::optional<Iteration> hold_;           // the present plan ends before it
  std::optional<Iteration> next_hold_;      // the end of the plan that is being installed
  bool settling_ = false;                   // at the hold: on_settle has been called
  bool started_ = false;
  std::optional<Iteration> wants_;          // a begin() that waits
  std::function<void(bool)> then_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::cluster
