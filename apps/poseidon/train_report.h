// What the launcher makes of the workers' notes: progress on the screen, a summary, and the report file.
//
// Called from the coordinator's lane while the job runs and from the main thread after it.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/caffe_log.h"
#include "apps/poseidon/train_notes.h"
#include "apps/poseidon/train_options.h"
#include "cluster/coordinator.h"
#include "plan/choose.h"
#include "plan/plan_sequence.h"
#include "poseidon/types.h"

namespace poseidon::app {

class TrainReport {
 public:
  // `log` is told of everything that Caffe's log has; of a test's loss where the solver's test_compute_loss asks for it.
  TrainReport(const TrainOptions& options, CaffeLog& log, bool tells_test_loss);

  void on_plan(const plan::Plan& plan, const std::vector<plan::LayerChoice>& choices, const plan::Speeds& speeds);
  void on_links(const std::vector<cluster::MeasuredLink>& links) { links_ = links; }
  void on_change(const cluster::PlanChange& change);
  void on_note(Rank from, const TrainNote& note);

  // The plans so far, to write and to repeat.
  plan::PlanSequence plans() const;
  // Everybody has told its end.
  bool complete() const { return finals_.size() == static_cast<std::size_t>(options_.job.workers); }
  void print_summary() const;
  // JSON. `error` says what ended the job early, if anything did.
  std::string report(const std::optional<std::string>& error, bool interrupted) const;

 private:
  // One iteration, of the workers that have told it so far.
  struct Iteration {
    int workers = 0;
    std::map<Rank, double> losses;  // summed in the order of ranks, so that the mean does not depend on who told first
    double smoothed_loss_sum = 0;
    double rate = 0;
    std::uint64_t records = 0;
    double seconds_sum = 0;
    bool display = false;
    std::vector<ScoreNote> output_sums;  // of those of its workers
  };
  // Since the last line on the screen.
  struct Window {
    std::uint64_t records = 0;
    double seconds = 0;
    double wait_seconds = 0;  // mean over the workers, at the last line
  };
  void on_progress(Rank from, const ProgressNote& note);
  void on_test(const TestNote& note);
  void print_line(std::uint64_t iteration, const Iteration& entry);
  double mean_wait_seconds() const;
  double samples_per_second() const;
  double seconds() const;

  std::string scheme_of(std::size_t layer) const;  // its name; "rows" for a layer whose touched rows travel
  const plan::Plan& plan() const { return changes_.empty() ? first_plan_ : changes_.back().plan; }
  // The screen shows our own lines, and not Caffe's.
  bool has_table() const { return options_.log_format == "table"; }

  const TrainOptions& options_;
  CaffeLog& log_;
  bool tells_test_loss_;

  plan::Plan first_plan_;
  std::vector<cluster::PlanChange> changes_;
  std::vector<cluster::MeasuredLink> links_;
  plan::Speeds speeds_;
  std::map<std::uint64_t, Iteration> open_;  // iterations that not all workers have told
  std::vector<std::pair<std::uint64_t, double>> train_loss_;
  std::vector<TestNote> tests_;
  std::vector<SnapshotNote> snapshots_;
  std::map<Rank, double> wait_seconds_;
  std::map<Rank, FinalNote> finals_;
  std::uint64_t records_ = 0;
  double training_seconds_ = 0;  // of all iterations, each the mean of the workers'
  Window window_;
  bool header_printed_ = false;
  std::chrono::steady_clock::time_point last_line_ = std::chrono::steady_clock::now();
};

}  // namespace poseidon::app
