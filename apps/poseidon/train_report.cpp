#include "apps/poseidon/train_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "plan/hosts.h"

namespace poseidon::app {
namespace {

using nlohmann::ordered_json;

// A solver without `display`, or with a rare one, still shows that it lives.
constexpr auto kLineEvery = std::chrono::seconds(10);

ordered_json number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr); }

double per_iteration(std::uint64_t bytes, std::uint64_t iterations) {
  return iterations == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(iterations);
}

ordered_json schemes_of(const plan::Plan& plan) {
  ordered_json schemes = ordered_json::object();
  for (const plan::LayerPlan& layer : plan.layers) schemes[layer.name] = to_string(layer.scheme);
  return schemes;
}

}  // namespace

TrainReport::TrainReport(const TrainOptions& options, CaffeLog& log, bool tells_test_loss)
    : options_(options), log_(log), tells_test_loss_(tells_test_loss) {}

void TrainReport::on_plan(const plan::Plan& plan, const std::vector<plan::LayerChoice>& choices, const plan::Speeds& speeds) {
  first_plan_ = plan;
  speeds_ = speeds;
  if (options_.job.workers == 1) return;
  if (options_.update == "sum") std::printf("Gradients are added over the workers, not averaged.\n");
  if (plan.wire && plan.hosts.size() != 1) std::printf("Gradients travel as %s.\n", std::string(to_string(*plan.wire)).c_str());
  if (!plan.hosts.empty()) {
    std::printf("%d workers combine their gradients in the memory of %zu host%s", options_.job.workers, plan.hosts.size(),
                plan.hosts.size() == 1 ? "" : "s, each of which is one worker to the network");
    std::printf("\n");
  }
  if (!choices.empty()) {
    if (plan.hosts.size() == 1) return;
    std::fputs(plan::choice_table(choices, plan::nodes_of(plan), speeds).c_str(), stdout);
    std::fputs(plan::serving_text(plan).c_str(), stdout);
    return;
  }
  std::printf("Schemes as in %s:", options_.plan.value_or("the plan").c_str());
  for (const plan::LayerPlan& layer : plan.layers) std::printf(" %s=%s", layer.name.c_str(), std::string(to_string(layer.scheme)).c_str());
  std::printf("\n%s", plan::serving_text(plan).c_str());
}

void TrainReport::on_change(const cluster::PlanChange& change) {
  changes_.push_back(change);
  speeds_ = change.speeds;
  std::string line = base::concat("from iteration ", change.from, " on: ", change.what.empty() ? "the same schemes" : change.what, " (", change.why);
  if (change.seconds_after > 0) {
    line += base::concat("; predicted: ", base::readable_seconds(change.seconds_after), " an iteration instead of ",
                         base::readable_seconds(change.seconds_before));
  }
  std::printf("%s)\n", line.c_str());
}

plan::PlanSequence TrainReport::plans() const {
  plan::PlanSequence plans = {{0, first_plan_}};
  for (const cluster::PlanChange& change : changes_) plans.push_back({change.from, change.plan});
  return plans;
}

void TrainReport::on_note(Rank from, const TrainNote& note) {
  if (const auto* start = std::get_if<StartNote>(&note)) return log_.on_start(*start);
  if (const auto* progress = std::get_if<ProgressNote>(&note)) return on_progress(from, *progress);
  if (const auto* test = std::get_if<TestNote>(&note)) return on_test(*test);
  if (const auto* snapshot = std::get_if<SnapshotNote>(&note)) {
    snapshots_.push_back(*snapshot);
    log_.on_snapshot(*snapshot);
    if (has_table()) std::printf("snapshot at %llu: %s\n", static_cast<unsigned long long>(snapshot->iteration), snapshot->state.c_str());
    return;
  }
  if (std::holds_alternative<TimelineNote>(note)) return;
  const FinalNote& final_note = std::get<FinalNote>(note);
  wait_seconds_[from] = final_note.wait_seconds;
  finals_[from] = final_note;
  if (complete()) {
    log_.on_end(final_note.iteration, train_loss_.empty() ? std::nullopt : std::optional(train_loss_.back().second));
  }
}

void TrainReport::on_progress(Rank from, const ProgressNote& note) {
  wait_seconds_[from] = note.wait_seconds;
  for (const IterationNote& told : note.iterations) {
    Iteration& entry = open_[told.iteration];
    ++entry.workers;
    entry.losses[from] = told.loss;
    entry.rate = told.rate;
    entry.records += told.records;
    entry.seconds_sum += told.seconds;
    entry.smoothed_loss_sum += told.smoothed_loss;
    entry.display = entry.display || told.display;
    if (entry.output_sums.empty()) {
      entry.output_sums = told.outputs;
    } else {
      for (std::size_t i = 0; i < std::min(told.outputs.size(), entry.output_sums.size()); ++i) entry.output_sums[i].value += told.outputs[i].value;
    }
    if (entry.workers < options_.job.workers) continue;
    const Iteration done = entry;
    open_.erase(told.iteration);
    double loss_sum = 0;
    for (const auto& [rank, loss] : done.losses) loss_sum += loss;
    train_loss_.emplace_back(told.iteration, loss_sum / options_.job.workers);
    records_ += done.records;
    training_seconds_ += done.seconds_sum / options_.job.workers;
    window_.records += done.records;
    window_.seconds += done.seconds_sum / options_.job.workers;
    if (done.display) {
      std::vector<ScoreNote> outputs = done.output_sums;
      for (ScoreNote& output : outputs) output.value /= options_.job.workers;
      log_.on_display(told.iteration, done.smoothed_loss_sum / options_.job.workers, done.rate, outputs);
    }
    if (!has_table()) continue;
    if (done.display || std::chrono::steady_clock::now() - last_line_ > kLineEvery) print_line(told.iteration, done);
  }
}

double TrainReport::mean_wait_seconds() const {
  double sum = 0;
  for (const auto& [rank, seconds] : wait_seconds_) sum += seconds;
  return sum / options_.job.workers;
}

void TrainReport::print_line(std::uint64_t iteration, const Iteration& entry) {
  if (!header_printed_) std::printf("%10s %10s %10s %10s %8s\n", "iteration", "loss", "rate", "samples/s", "waiting");
  header_printed_ = true;
  const double waited = mean_wait_seconds() - window_.wait_seconds;
  std::printf("%10llu %10.5g %10.4g %10.0f %6.1f %%\n", static_cast<unsigned long long>(iteration), entry.smoothed_loss_sum / options_.job.workers,
              entry.rate, static_cast<double>(window_.records) / std::max(window_.seconds, 1e-9),
              100 * std::clamp(waited / std::max(window_.seconds, 1e-9), 0.0, 1.0));
  std::fflush(stdout);
  window_ = {.records = 0, .seconds = 0, .wait_seconds = mean_wait_seconds()};
  last_line_ = std::chrono::steady_clock::now();
}

void TrainReport::on_test(const TestNote& note) {
  tests_.push_back(note);
  log_.on_test(note, tells_test_loss_);
  if (!has_table()) return;
  std::string line = base::concat("test at ", note.iteration);
  if (note.net > 0) line += base::concat(", net ", note.net);
  const char* separator = ": ";
  for (const ScoreNote& score : note.scores) {
    char text[64];
    std::snprintf(text, sizeof text, "%.5g", score.value);
    line += base::concat(separator, score.name, " ", text);
    separator = ", ";
  }
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

double TrainReport::seconds() const {
  double most = 0;
  for (const auto& [rank, note] : finals_) most = std::max(most, note.seconds);
  return most;
}

double TrainReport::samples_per_second() const {
  return training_seconds_ > 0 ? static_cast<double>(records_) / training_seconds_ : 0;
}

void TrainReport::print_summary() const {
  const FinalNote& first = finals_.begin()->second;
  std::printf("\n%llu iterations, %llu samples in %s: %.0f samples/s", static_cast<unsigned long long>(first.iterations),
              static_cast<unsigned long long>(records_), base::readable_seconds(seconds()).c_str(), samples_per_second());
  if (options_.job.workers > 1) {
    std::printf("; workers waited for sums %.1f %% of the time", 100 * mean_wait_seconds() / std::max(training_seconds_, 1e-9));
  }
  std::printf("\n");
  if (options_.job.workers > 1 && first.iterations > 0) {
    std::printf("%-16s %-8s %14s %14s   payload per iteration, mean of the workers\n", "layer", "scheme", "sent", "received");
    std::uint64_t all_sent = 0;
    std::uint64_t all_received = 0;
    for (std::size_t l = 0; l < plan().layers.size(); ++l) {
      std::uint64_t sent = 0;
      std::uint64_t received = 0;
      for (const auto& [rank, note] : finals_) {
        sent += note.layers[l].bytes_sent;
        received += note.layers[l].bytes_received;
      }
      const std::uint64_t runs = first.iterations * static_cast<std::uint64_t>(options_.job.workers);
      std::printf("%-16s %-8s %14s %14s\n", plan().layers[l].name.c_str(), scheme_of(l).c_str(),
                  base::readable_bytes(per_iteration(sent, runs)).c_str(), base::readable_bytes(per_iteration(received, runs)).c_str());
      all_sent += sent;
      all_received += received;
    }
    if (!changes_.empty()) std::printf("%-16s (the last plan's; the bytes are those of all %zu plans)\n", "", changes_.size() + 1);
    std::uint64_t framed = 0;
    for (const auto& [rank, note] : finals_) framed += note.bytes_sent;
    const std::uint64_t runs = first.iterations * static_cast<std::uint64_t>(options_.job.workers);
    std::printf("%-16s %-8s %14s %14s   %s with framing\n", "all", "", base::readable_bytes(per_iteration(all_sent, runs)).c_str(),
                base::readable_bytes(per_iteration(all_received, runs)).c_str(), base::readable_bytes(per_iteration(framed, runs)).c_str());
  }
  std::printf("parameters %.16s... %s\n", first.digest.c_str(), options_.job.workers > 1 ? "equal on all workers" : "");
}

std::string TrainReport::scheme_of(std::size_t layer) const {
  const bool rows = !finals_.empty() && finals_.begin()->second.layers[layer].rows;
  return rows ? "rows" : std::string(to_string(plan().layers[layer].scheme));
}

std::string TrainReport::report(const std::optional<std::string>& error, bool interrupted) const {
  ordered_json j;
  j["poseidon"] = POSEIDON_VERSION;
  j["solver"] = options_.solver;
  j["workers"] = options_.job.workers;
  j["hosts"] = plan::nodes_of(first_plan_);
  j["threads"] = options_.threads > 0 ? ordered_json(options_.threads) : ordered_json(nullptr);
  j["dtype"] = options_.dtype;
  j["wire"] = plan().wire ? ordered_json(to_string(*plan().wire)) : ordered_json(nullptr);
  j["update"] = options_.update;
  const FinalNote* const first = finals_.empty() ? nullptr : &finals_.begin()->second;
  j["iterations"] = first != nullptr ? first->iterations : train_loss_.size();
  j["samples"] = records_;
  j["seconds"] = seconds();
  j["training_seconds"] = training_seconds_;
  j["samples_per_second"] = samples_per_second();
  j["wait_seconds"] = mean_wait_seconds();
  j["interrupted"] = interrupted;
  j["error"] = error ? ordered_json(*error) : ordered_json(nullptr);
  j["train_loss"] = ordered_json::array();
  for (const auto& [iteration, loss] : train_loss_) j["train_loss"].push_back({iteration, number(loss)});
  j["test"] = ordered_json::array();
  for (const TestNote& test : tests_) {
    ordered_json entry = {{"iteration", test.iteration}};
    for (const ScoreNote& score : test.scores) {
      if (score.name == "accuracy") entry["accuracy"] = number(score.value);
    }
    entry["loss"] = number(test.loss);
    entry["net"] = test.net;
    entry["scores"] = ordered_json::array();
    for (const ScoreNote& score : test.scores) entry["scores"].push_back({{"name", score.name}, {"value", number(score.value)}});
    j["test"].push_back(std::move(entry));
  }
  j["snapshots"] = ordered_json::array();
  for (const SnapshotNote& s : snapshots_) j["snapshots"].push_back({{"iteration", s.iteration}, {"model", s.model}, {"state", s.state}});
  j["layers"] = ordered_json::array();
  for (std::size_t l = 0; l < plan().layers.size() && complete(); ++l) {
    // Payload per iteration: the mean of the workers, and each by itself.
    ordered_json by_worker = ordered_json::array();
    double sent = 0;
    double received = 0;
    for (const auto& [rank, note] : finals_) {
      const double own_sent = per_iteration(note.layers[l].bytes_sent, note.iterations);
      const double own_received = per_iteration(note.layers[l].bytes_received, note.iterations);
      by_worker.push_back({{"rank", index(rank)}, {"bytes_sent", own_sent}, {"bytes_received", own_received}});
      sent += own_sent / options_.job.workers;
      received += own_received / options_.job.workers;
    }
    ordered_json layer = {{"name", plan().layers[l].name}, {"scheme", scheme_of(l)}};
    if (plan().layers[l].scheme == Scheme::kBlock) layer["grid"] = {plan().layers[l].grid.rows, plan().layers[l].grid.cols};
    layer["bytes_sent"] = sent;
    layer["bytes_received"] = received;
    layer["by_worker"] = std::move(by_worker);
    j["layers"].push_back(std::move(layer));
  }
  j["bytes_sent"] = ordered_json::array();
  j["bytes_received"] = ordered_json::array();
  j["staging_bytes_max"] = ordered_json::array();
  for (const auto& [rank, note] : finals_) {
    j["bytes_sent"].push_back(note.bytes_sent);
    j["bytes_received"].push_back(note.bytes_received);
    j["staging_bytes_max"].push_back(note.staging_bytes_max);
  }
  j["link"] = {{"bytes_per_second", speeds_.link_bytes_per_second}, {"latency_seconds", speeds_.latency_seconds},
               {"flops_per_second", speeds_.flops_per_second}, {"sum_bytes_per_second", speeds_.sum_bytes_per_second}};
  j["links"] = ordered_json::array();
  for (const cluster::MeasuredLink& link : links_) {
    j["links"].push_back({{"from", index(link.from)}, {"to", index(link.to)}, {"bytes_per_second", link.bytes_per_second},
                          {"latency_seconds", link.latency_seconds}});
  }
  j["plans"] = ordered_json::array();
  j["plans"].push_back({{"from", 0}, {"schemes", schemes_of(first_plan_)}});
  for (const cluster::PlanChange& change : changes_) {
    ordered_json entry = {{"from", change.from}, {"schemes", schemes_of(change.plan)}, {"why", change.why}, {"what", change.what}};
    if (change.seconds_after > 0) {
      entry["predicted_seconds_before"] = change.seconds_before;
      entry["predicted_seconds"] = change.seconds_after;
    }
    j["plans"].push_back(std::move(entry));
  }
  if (first != nullptr) j["parameters_digest"] = first->digest;
  return j.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace poseidon::app
