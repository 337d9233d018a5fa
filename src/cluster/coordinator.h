// The one who opens a job's epoch, agrees on its plan, watches over its members and ends it.
//
// It lives in the launcher, or in rank 0 where there is none, and moves no gradients. The order of things:
//   join      every worker connects, proves the secret and tells its parameters; they must be the same everywhere
//   link      workers connect to each other
//   measure   links and arithmetic; a rate that the user has given takes the place of the measured one
//   plan      one scheme for each layer, the same for all
//   start     when everybody has installed the plan
//   leave     when everybody has done its work
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
#include "cluster/silence.h"
#include "plan/choose.h"
#include "plan/hosts.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::cluster {

struct CoordinatorOptions {
  int workers = 1;
  plan::SchemeRequest schemes;
  std::optional<std::string> plan_json;           // repeats this plan instead of choosing
  std::string plan_name = "the given plan";       // where it comes from, for messages
  plan::PerHost per_host = plan::PerHost::kOff;   // which workers of one machine combine in its memory; a given plan says itself
  std::optional<double> link_bytes_per_second;    // instead of measuring
  double dilation = 1;                            // of a replay whose network is slower than the one that it stands for
  HeartbeatOptions heartbeat;
  // Loading libraries and data takes seconds on a busy machine; a worker that never comes should not hold the others longer.
  runtime::Duration join_max = std::chrono::seconds(120);
  runtime::Duration phase_max = std::chrono::seconds(60);  // each step between joining and the start
  runtime::Duration explain_after = std::chrono::seconds(2);
  // After a link broke: the launcher may know better why (a signal), and is given this long to say.
  runtime::Duration death_grace = std::chrono::milliseconds(300);
};

struct CoordinatorListener {
  // Something takes long: whom it waits for.
  std::function<void(const std::string& text)> on_wait;
  // The plan is made: the choices behind it (empty when the plan was given), and the speeds that they rest on.
  std::function<void(const plan::Plan& plan, const std::vector<plan::LayerChoice>& choices, const plan::Speeds& speeds,
                     const Model& model)>
      on_plan;
  std::function<void()> on_start;
  std::function<void(Rank from, const std::string& body)> on_note;
  // Everybody has left in order.
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
  // Everybody stops now, with this reason.
  void abort(const Error& why);
  bool over() const { return phase_ == Phase::kFinished || phase_ == Phase::kFailed; }
  // Who was to join as that rank, as far as it is known.
  std::string describe(Rank rank) const;

 private:
  enum class Phase { kJoining, kLinking, kMeasuring, kPlanning, kRunning, kFinished, kFailed };

  void on_message(Member from, const Message& message);
  void on_join(Member from, const Join& join);
  Status compare(const Join& join, const Join& first) const;
  void open_epoch();
  void make_plan();
  // The workers' choices, or the given plan. `choices` stays empty then.
  Result<plan::Plan> chosen_plan(const plan::Speeds& speeds, std::vector<plan::LayerChoice>& choices) const;
  Status check_given(const plan::Plan& plan, bool alike) const;
  plan::Speeds slowest() const;
  void on_gather(Rank rank, const Gather& gather);
  void stop_when_all_paused();
  void on_leave(Rank rank);
  void on_link_down(Member peer, const Error& why);
  void suspect(Rank rank, const std::string& why);
  void enter(Phase phase);
  // True once everybody has answered in this phase.
  bool everybody(Rank rank);
  void tick();
  void check_deadline();
  void send_to_all(const Message& message);
  std::vector<std::string> missing() const;

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  CoordinatorOptions options_;
  CoordinatorListener listener_;
  Phase phase_ = Phase::kJoining;
  runtime::Time phase_since_{};
  runtime::Duration next_explanation_{};
  std::map<Rank, Join> joined_;
  std::set<Rank> answered_;  // in this phase
  std::map<Rank, plan::Speeds> speeds_;
  std::map<std::uint64_t, std::map<Rank, std::string>> gatherings_;  // by number; those that are not complete
  std::set<Rank> left_;
  bool stopping_ = false;
  std::map<Rank, Iteration> limits_;  // beyond which a paused worker begins nothing
  std::optional<Error> failure_;
  SilenceDetector silence_;
  runtime::TimerId timer_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::cluster
