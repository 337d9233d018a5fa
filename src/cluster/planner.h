// Which plan a job uses, and when it should go over to another: the coordinator's judgement.
//
// The first plan is made before anything is known of the layers' computing times, so each layer is looked at as if it were alone
// on the network. While the job trains the workers tell what their iterations are like, a window of them at a time, and from then
// on the schedule decides (plan/schedule.h). Another plan is wished for
//   - when it promises a gain worth the trouble, in two windows one after the other, since one may be chance (in the first window
//     after the start it is enough once: the first plan was made blindly);
//   - when the plan before was faster after all: the prediction was wrong;
// and new measurements of links and arithmetic
//   - when iterations take much longer, or much shorter, than they did after the last change: whatever it is that has changed.
// Between two changes there is a rest; it doubles each time that nothing was gained, so a job whose measurements lie settles down.
//
// Where workers of a host combine in its memory the plan that a job begins with stays: what a window tells is one worker's times,
// and the products of a whole host at its leader do not follow from them.
//
// Pure: no clock, no socket. The plans are as given and nothing is wished for where the user gave a plan, or left no choice.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/choose.h"
#include "plan/hosts.h"
#include "plan/plan_sequence.h"
#include "plan/profile.h"
#include "plan/schedule.h"
#include "plan/server_shares.h"

namespace poseidon::cluster {

struct ReplanOptions {
  bool enabled = true;
  double gain_min = 0.03;                 // of an iteration's time: less than predictions err by is not worth a change
  double drift_min = 0.2;                 // likewise, beyond what iterations vary by
  std::uint64_t iterations_between = 20;  // two windows and the few iterations that warm up
};

struct PlannerOptions {
  int workers = 1;
  int servers = 0;                       // dedicated ones
  bool colocated = true;                 // the workers serve as well
  plan::SchemeRequest schemes;
  std::optional<std::string> plan_json;  // repeats this plan, or this sequence of plans, instead of choosing
  std::string plan_name;                 // where it comes from, for messages
  std::optional<DType> wire;             // in which float32 gradients travel; nothing: as they are, or as plan_json says
  plan::PerHost per_host = plan::PerHost::kOff;  // which workers of one machine combine in its memory; plan_json says itself
  ReplanOptions replan;
};

// Where a worker runs.
struct WorkerPlace {
  std::string machine;  // equal where two workers can share memory; empty: with nobody
  std::string name;     // of the worker, for messages
};

// What is known of the machines.
struct Figures {
  plan::Speeds speeds;    // the slowest of all
  plan::LinkRates links;  // by worker and dedicated server
  std::vector<WorkerPlace> places = {};  // by rank; for begin() only
};

// From one plan to the next.
struct PlanChange {
  Iteration from = 0;         // the first iteration of the new plan
  plan::Plan plan;
  std::string why;            // "an iteration takes 1.3 s instead of 0.4 s, and the link 0.9 instead of 9.4 Gbit/s"
  std::string what;           // "ip1 sfb -> block 2x2"
  double seconds_before = 0;  // predicted, of an iteration; 0 where nothing was predicted
  double seconds_after = 0;
  plan::Speeds speeds;        // on which it rests
};

class Planner {
 public:
  explicit Planner(PlannerOptions options) : options_(std::move(options)) {}

  // The plan for the beginning, and the choices behind it (none where it was given). `alike`: all workers compute the same bits.
  // `first` is the iteration that begins first, `replans` whether all workers can go over to another plan.
  Result<std::vector<plan::LayerChoice>> begin(const Model& model, bool alike, const Figures& figures, Iteration first, bool replans);
  // Instead, for a model that is trained only until a better one is known: densely, whatever the user has asked for or given, since
  // that is about the model to come.
  void begin_provisionally(const Model& model, const Figures& figures, Iteration first);
  const plan::Plan& plan() const { return plan_; }
  const plan::Speeds& speeds() const { return speeds_; }
  // Whether profiles are of any use.
  bool watches() const { return watches_; }
  // Where the plans were given: the one after the present one.
  std::optional<plan::PlanVersion> next_given() const;

  enum class Wish : std::uint8_t { kNothing, kReplan, kMeasure };
  // kCorruptFrame where the profile is not one of this model.
  Result<Wish> on_profile(Rank rank, const plan::Profile& profile);
  // After kReplan: what to go over to.
  const PlanChange& proposal() const { return *proposal_; }
  // After kMeasure: the new figures. What to go over to, if anything.
  std::optional<PlanChange> measured(const Figures& figures);
  // The change is made: its plan is in force from change.from on.
  void changed(const PlanChange& change);

 private:
  Status use_given(const Model& model, bool alike, const std::vector<WorkerPlace>& places, Iteration first, bool replans);
  // Completes a plan that was given with shares where it lacks them, or says why this job cannot repeat it.
  Status complete(plan::Plan& plan, bool alike, const std::vector<WorkerPlace>& places) const;
  // Shares by the links' rates; nothing where all workers serve alike and nobody else does.
  std::optional<plan::ServerShares> who_serves() const;
  // The times of the slowest worker, as if all products of weight gradients were made in the backward pass, where who serves is
  // as in that plan.
  plan::Schedule schedule(const plan::Plan& plan) const;
  double iteration_seconds() const;
  // `serving`: the shares of the better plan.
  std::optional<PlanChange> better_plan(const std::string& why, const std::vector<std::uint32_t>& serving) const;
  Wish judge();
  // Nothing was gained, or something was.
  void rest(bool gained);

  PlannerOptions options_;
  Model model_;  // as it travels: plan::network_model, model_on_wire
  bool alike_ = true;
  bool watches_ = false;
  plan::Speeds speeds_;
  plan::LinkRates links_;  // by node: of a host, its leader's
  plan::Plan plan_;
  plan::PlanSequence given_;    // empty where the plan is chosen here
  std::size_t given_next_ = 0;
  std::map<Rank, plan::Profile> profiles_;  // the newest window of each worker
  std::map<Rank, bool> fresh_;              // it has come since the last judgement

  // What the present plan was measured to take in its first window.
  std::optional<double> reference_seconds_;
  // The plan before, until it is known whether the present one is faster, and what it took.
  struct Trial {
    plan::Plan before;
    double before_seconds = 0;
    int slower_windows = 0;
  };
  std::optional<Trial> trial_;
  std::vector<plan::Plan> disproved_;  // plans that were slower than predicted, by the present figures
  std::optional<PlanChange> proposal_;
  std::string measured_why_;           // why new measurements were wished for
  bool blind_ = true;                  // the plan was made without knowing the schedule
  int promising_windows_ = 0;
  int drifted_windows_ = 0;
  std::uint64_t rest_iterations_ = 0;
  Iteration last_change_ = 0;
};

}  // namespace poseidon::cluster
