// The one who opens a job's epoch, agrees on its plan, watches over its members and ends it.
//
// It lives in the launcher, or in rank 0 where there is none, and moves no gradients. The order of things:
//   join      every worker connects, proves the secret and tells its parameters; they must be the same everywhere. Dedicated
//             servers join as well, and have none
//   link      members connect to each other
//   measure   links and arithmetic; a rate that the user has given takes the place of the measured one
//   plan      one scheme for each layer, and who serves how much; the same for all. Servers are told the model with it
//   start     when everybody has installed the plan
//   change    now and then all go over to another plan, between the same two iterations
//   leave     when every worker has done its work
// A member that dies, falls silent or fails ends the job for all, with one reason that names it.
//
// Lane only. Callbacks may not destroy the coordinator.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/messages.h"
#include "cluster/planner.h"
#include "cluster/silence.h"
#include "plan/hosts.h"
#include "plan/server_shares.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::cluster {

struct CoordinatorOptions {
  int workers = 1;
  int servers = 0;                                // dedicated ones: members workers, workers + 1, ...
  bool colocated = true;                          // false: only the dedicated servers serve, of which there must be one
  plan::SchemeRequest schemes;
  std::optional<std::string> plan_json;           // repeats this plan, or sequence of plans, instead of choosing
  std::string plan_name = "the given plan";       // where it comes from, for messages
  // In which float32 gradients travel (plan::Plan::wire). Nothing: as they are, or as plan_json says.
  std::optional<DType> wire;
  plan::PerHost per_host = plan::PerHost::kOff;   // which workers of one machine combine in its memory; a given plan says itself
  std::optional<double> link_bytes_per_second;    // instead of measuring
  double dilation = 1;                            // of a replay whose network is slower than the one that it stands for
  ReplanOptions replan;
  HeartbeatOptions heartbeat;
  // Loading libraries and data takes seconds on a busy machine; a worker that never comes should not hold the others longer.
  runtime::Duration join_max = std::chrono::seconds(120);
  // True: while no worker has joined nothing is said, and no time runs out: launchers that watch over their processes know better.
  bool waits_for_first = false;
  runtime::Duration phase_max = std::chrono::seconds(60);  // each step between joining and the start, or of a change of plan
  // From the first worker that waits for the next plan until the last. Long, since one may be busy with a test or a snapshot.
  runtime::Duration settle_max = std::chrono::minutes(30);
  runtime::Duration explain_after = std::chrono::seconds(2);
  // After a link broke: the launcher may know better why (a signal), and is given this long to say.
  runtime::Duration death_grace = std::chrono::milliseconds(300);
};

// One direction of a link between two workers, as it was measured.
struct MeasuredLink {
  Rank from{0};
  Rank to{0};
  double bytes_per_second = 0;
  double latency_seconds = 0;
};

struct CoordinatorListener {
  // Something takes long: whom it waits for.
  std::function<void(const std::string& text)> on_wait;
  // The plan is made: the choices behind it (empty when the plan was given), and the speeds that they rest on.
  std::function<void(const plan::Plan& plan, const std::vector<plan::LayerChoice>& choices, const plan::Speeds& speeds,
                     const Model& model)>
      on_plan;
  std::function<void()> on_start;
  // The links have been measured: before on_plan, and perhaps again before on_change.
  std::function<void(const std::vector<MeasuredLink>& links)> on_links;
  // All workers go over to another plan.
  std::function<void(const PlanChange& change)> on_change;
  std::function<void(Rank from, const std::string& body)> on_note;
  // Every worker has left in order.
  std::function<void()> on_finish;
  // The job is over because of this. Called once; on_finish is not called then.
  std::function<void(const Error& why)> on_fail;
};

class Coordinator {
 public:
  // Takes the transport's listener and its control frames.
  Coordinator(runtime::Runtime& runtime, runtime::Transport& transport, CoordinatorOptions options, CoordinatorListener listener);
  ~Coordinator();

  // All workers stop after the same iteration, and leave in order. Before the start: ends the job with an error.
  void request_stop();
  // All workers go over to this plan before an iteration that they agree on. False: not now (the job does not run, ends, or
  // goes over to another plan already), or these workers cannot.
  bool change_plan(plan::Plan plan, const std::string& why);
  // Everybody stops now, with this reason.
  void abort(const Error& why);
  // So many workers have joined so far.
  int joined() const;
  bool over() const { return phase_ == Phase::kFinished || phase_ == Phase::kFailed; }
  // Who was to join as that rank, or as server number rank - workers, as far as it is known.
  std::string describe(Rank rank) const;

 private:
  enum class Phase { kJoining, kLinking, kMeasuring, kPlanning, kRunning, kFinished, kFailed };

  // How far a change of plan is.
  enum class Change {
    kNone,
    kPausing,     // everybody promises how far it goes
    kSettling,    // everybody runs up to the same iteration, boundary_
    kMeasuring,   // links and arithmetic, again
    kInstalling,  // the next plan
    kRenewing,    // workers come to the iteration from which they train another model (messages.h, Renew)
  };

  void on_message(Member from, const Message& message);
  // Messages of a running job that are about its plans. False: this is none.
  bool on_change_message(Rank rank, const Message& message);
  void on_join(Member from, const Join& join);
  Status compare(const Join& join, const Join& first) const;
  void open_epoch();
  void start_measuring(bool arithmetic);
  void measure_round(bool arithmetic);
  void on_speeds(Rank rank, const plan::Speeds& speeds);
  // What has been measured before is not measured again.
  void measure_and_plan();
  void make_plan();
  void send_plan();
  void started();
  plan::Speeds slowest() const;
  // Of all members' links, as far as they are known.
  plan::LinkRates link_rates() const;
  // Of the workers, by rank.
  std::vector<WorkerPlace> places() const;
  void on_gather(Rank rank, const Gather& gather);
  void go_on_when_all_paused();
  void on_paused(Rank rank, const Paused& paused);
  void pause();
  void stop_workers();
  void on_profile(Rank rank, const plan::Profile& profile);
  void on_settled(Rank rank);
  void on_renew(Rank rank, const Renew& renew);
  // Whether all workers have told the same of their next model.
  Status compare_renewals() const;
  void change_measured();
  void cancel_change();
  void install();
  void enter(Change change);
  void on_leave(Rank rank, Iteration next);
  Error left_while_renewing(Rank renewing) const;
  Error left_while_gathering(Rank gathering) const;
  void on_link_down(Member peer, const Error& why);
  void suspect(Rank rank, const std::string& why);
  void enter(Phase phase);
  // True once everybody has answered in this phase, or step of a change.
  bool everybody(Rank rank);
  void tick();
  void check_deadline();
  void check_gatherings();
  void check_leaving();
  void send_to_all(const Message& message);
  void send_to_workers(const Message& message);
  int nodes() const { return options_.workers + options_.servers; }
  bool is_worker(Rank rank) const { return index(rank) < options_.workers; }
  bool all_workers(const std::function<bool(const Join&)>& holds) const;
  // How many must answer what is being asked: all members, or only the workers, who alone run iterations. The first of all.
  int awaited_nodes() const {
    const bool is_of_workers = change_ == Change::kPausing || change_ == Change::kSettling || change_ == Change::kRenewing;
    return is_of_workers ? options_.workers : nodes();
  }
  std::vector<std::string> missing() const;
  std::optional<std::string> awaited() const;
  std::optional<std::string> awaited_change() const;

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  CoordinatorOptions options_;
  CoordinatorListener listener_;
  Phase phase_ = Phase::kJoining;
  runtime::Time phase_since_{};
  runtime::Duration next_explanation_{};
  std::map<Rank, Join> joined_;         // workers before dedicated servers
  std::map<Rank, std::vector<TensorId>> renewed_values_;  // Renew::values of the renewal that is being agreed on
  std::set<Rank> answered_;  // in this phase
  Planner planner_;
  std::map<Rank, plan::Speeds> speeds_;
  std::vector<MeasuredLink> links_;
  std::vector<std::uint32_t> shifts_left_;  // rounds of measuring that are to come; the present one first
  struct Gathering {
    std::map<Rank, std::string> parts;
    runtime::Time since{};
    runtime::Duration next_explanation{};
  };
  std::map<std::uint64_t, Gathering> gatherings_;  // by number; those that are not complete
  std::set<Rank> left_;                 // workers
  runtime::Time leaving_since_{};       // when the first of them left
  runtime::Duration next_leaving_explanation_{};
  bool begun_ = false;                  // data has been allowed to flow once
  bool stopping_ = false;
  bool stop_asked_ = false;             // workers have been asked how far they go
  std::uint64_t pauses_ = 0;          // so many have been asked for
  std::map<Rank, Iteration> limits_;  // beyond which a paused worker begins nothing
  Change change_ = Change::kNone;
  std::optional<PlanChange> next_;         // what the change leads to; nothing: what the new measurements say
  std::optional<Iteration> boundary_;      // the present plan ends before it
  std::optional<Error> failure_;
  SilenceDetector silence_;
  runtime::TimerId timer_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::cluster
