#include "cluster/planner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "base/text.h"

namespace poseidon::cluster {
namespace {

// One window may be chance: somebody else used the machine for a second.
constexpr int kWindowsToBelieve = 2;
// The rest between two changes stops doubling here; at 0.1 s an iteration that is a day.
constexpr std::uint64_t kRestMax = 1'000'000;

// "link 0.90 instead of 9.40 Gbit/s", for the figures that have changed by more than a tenth.
std::string changed_figures(const plan::Speeds& before, const plan::Speeds& after) {
  std::string words;
  const auto tell = [&](const char* name, double old_value, double new_value, const std::string& text) {
    if (std::abs(new_value - old_value) <= 0.1 * old_value) return;
    words += base::concat(words.empty() ? "" : ", ", name, " ", text);
  };
  const auto scaled = [](double value, double unit) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", value / unit);
    return std::string(text);
  };
  tell("link", before.link_bytes_per_second, after.link_bytes_per_second,
       base::concat(scaled(after.link_bytes_per_second, 1e9 / 8), " instead of ", scaled(before.link_bytes_per_second, 1e9 / 8), " Gbit/s"));
  tell("latency", before.latency_seconds, after.latency_seconds,
       base::concat(base::readable_seconds(after.latency_seconds), " instead of ", base::readable_seconds(before.latency_seconds)));
  tell("products", before.flops_per_second, after.flops_per_second,
       base::concat(scaled(after.flops_per_second, 1e9), " instead of ", scaled(before.flops_per_second, 1e9), " GFLOP/s"));
  return words;
}

}  // namespace

Status Planner::use_given(bool alike, Iteration first, bool replans) {
  Result<plan::PlanSequence> given = plan::parse_plan_sequence(*options_.plan_json, *model_, options_.workers);
  if (!given) return Error{given.error().code, base::concat(options_.plan_name, ": ", given.error().message)};
  given_ = std::move(*given);
  for (const plan::PlanVersion& version : given_) {
    const auto wrong =
        std::find_if(version.plan.layers.begin(), version.plan.layers.end(), [](const auto& l) { return l.scheme == Scheme::kSfb; });
    if (alike || wrong == version.plan.layers.end()) continue;
    return Error{ErrorCode::kInvalid, base::concat(options_.plan_name, ": layer ", wrong->name, " cannot use sfb: the workers' ",
                                                   "processors or thread counts differ, so their replicas would not stay equal")};
  }
  const std::size_t now = plan::version_at(given_, first);
  plan_ = given_[now].plan;
  given_next_ = now + 1;
  if (given_next_ < given_.size() && !replans) {
    return Error{ErrorCode::kInvalid, base::concat(options_.plan_name, ": it changes at iteration ", given_[given_next_].from,
                                                   ", and these workers keep to the plan that they begin with")};
  }
  return {};
}

Result<std::vector<plan::LayerChoice>> Planner::begin(const Model& model, bool alike, const plan::Speeds& speeds, Iteration first,
                                                      bool replans) {
  model_ = &model;
  alike_ = alike;
  speeds_ = speeds;
  last_change_ = first;
  rest_iterations_ = options_.replan.iterations_between;
  if (options_.plan_json) {
    if (const Status status = use_given(alike, first, replans); !status) return status.error();
    return std::vector<plan::LayerChoice>();
  }
  Result<std::vector<plan::LayerChoice>> choices = plan::choose(model, options_.workers, options_.schemes, speeds, alike);
  if (!choices) return choices.error();
  plan_ = plan::plan_of(*choices, options_.workers);
  watches_ = options_.replan.enabled && replans && plan::has_choice(model, options_.workers, options_.schemes);
  return choices;
}

std::optional<plan::PlanVersion> Planner::next_given() const {
  return given_next_ < given_.size() ? std::optional(given_[given_next_]) : std::nullopt;
}

plan::Schedule Planner::schedule() const {
  plan::Schedule schedule{model_, options_.workers, speeds_, {}};
  double slowest = -1;
  for (const auto& [rank, profile] : profiles_) {
    double computing = 0;
    for (const plan::ComputeTimes& layer : profile.layers) computing += layer.forward + layer.backward;
    if (computing <= slowest) continue;
    slowest = computing;
    schedule.layers = profile.layers;
  }
  for (std::size_t l = 0; l < schedule.layers.size(); ++l) {
    if (plan_.layers[l].scheme == Scheme::kPs) continue;
    // A layer that gives away its factors does not make the product itself.
    const plan::LayerSize size = *plan::factor_size(*model_, model_->layers[l]);
    const double product = 2.0 * static_cast<double>(size.batch) * static_cast<double>(size.rows) * static_cast<double>(size.cols);
    schedule.layers[l].backward += product / speeds_.flops_per_second;
  }
  return schedule;
}

double Planner::iteration_seconds() const {
  std::vector<double> seconds;
  for (const auto& [rank, profile] : profiles_) seconds.push_back(profile.iteration_seconds);
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

std::optional<PlanChange> Planner::better_plan(const std::string& why) const {
  const plan::Schedule now = schedule();
  plan::Plan best = plan::best_plan(now, options_.schemes, alike_, plan_);
  if (best == plan_ || std::find(disproved_.begin(), disproved_.end(), best) != disproved_.end()) return std::nullopt;
  const double before = plan::iteration_seconds(now, plan_);
  const double after = plan::iteration_seconds(now, best);
  if (after > (1 - options_.replan.gain_min) * before) return std::nullopt;
  std::string what = plan::difference(plan_, best);
  return PlanChange{0, std::move(best), why, std::move(what), before, after, speeds_};
}

Result<Planner::Wish> Planner::on_profile(Rank rank, const plan::Profile& profile) {
  if (profile.layers.size() != model_->layers.size()) {
    return Error{ErrorCode::kCorruptFrame, base::concat("it told the times of ", profile.layers.size(), " layers, the model has ",
                                                        model_->layers.size())};
  }
  if (!watches_) return Wish::kNothing;
  profiles_[rank] = profile;
  fresh_[rank] = true;
  if (fresh_.size() < static_cast<std::size_t>(options_.workers)) return Wish::kNothing;
  fresh_.clear();
  return judge();
}

Planner::Wish Planner::judge() {
  const double seconds = iteration_seconds();
  Iteration iteration = 0;
  for (const auto& [rank, profile] : profiles_) iteration = std::max(iteration, profile.iteration);
  if (!reference_seconds_) reference_seconds_ = seconds;
  if (trial_) {
    if (seconds <= (1 + options_.replan.gain_min) * trial_->before_seconds) {
      rest(seconds < (1 - options_.replan.gain_min / 2) * trial_->before_seconds);
      trial_.reset();
    } else if (++trial_->slower_windows >= kWindowsToBelieve) {
      proposal_ = PlanChange{0, trial_->before,
                             base::concat("iterations take ", base::readable_seconds(seconds), " with it instead of ",
                                          base::readable_seconds(trial_->before_seconds), " with the plan before"),
                             plan::difference(plan_, trial_->before), 0, 0, speeds_};
      return Wish::kReplan;
    } else {
      return Wish::kNothing;
    }
  }
  const bool drifts = std::abs(seconds - *reference_seconds_) > options_.replan.drift_min * *reference_seconds_;
  drifted_windows_ = drifts ? drifted_windows_ + 1 : 0;
  proposal_ = better_plan(blind_ ? "the first plan took each layer by itself" : "the layers' computing times have changed");
  promising_windows_ = proposal_ ? promising_windows_ + 1 : 0;
  if (iteration < last_change_ + rest_iterations_) return Wish::kNothing;
  const int windows_needed = std::exchange(blind_, false) ? 1 : kWindowsToBelieve;
  if (drifted_windows_ >= kWindowsToBelieve) {
    measured_why_ = base::concat("an iteration takes ", base::readable_seconds(seconds), " instead of ",
                                 base::readable_seconds(*reference_seconds_));
    return Wish::kMeasure;
  }
  return promising_windows_ >= windows_needed ? Wish::kReplan : Wish::kNothing;
}

std::optional<PlanChange> Planner::measured(const plan::Speeds& speeds) {
  const std::string figures = changed_figures(speeds_, speeds);
  speeds_ = speeds;
  disproved_.clear();
  reference_seconds_.reset();
  drifted_windows_ = 0;
  Iteration iteration = 0;
  for (const auto& [rank, profile] : profiles_) iteration = std::max(iteration, profile.iteration);
  last_change_ = iteration;
  std::optional<PlanChange> change = better_plan(figures.empty() ? measured_why_ : base::concat(measured_why_, "; ", figures));
  if (!change) rest(false);
  return change;
}

void Planner::changed(const PlanChange& change) {
  if (given_next_ < given_.size()) ++given_next_;
  const bool goes_back = trial_ && trial_->before == change.plan;
  reference_seconds_.reset();
  if (goes_back) {
    disproved_.push_back(plan_);
    rest(false);
    // If iterations stay slow all the same, it was not the plan, and that shows as a drift.
    reference_seconds_ = trial_->before_seconds;
    trial_.reset();
  } else if (watches_ && !profiles_.empty()) {
    trial_ = Trial{plan_, iteration_seconds(), 0};
  }
  plan_ = change.plan;
  last_change_ = change.from;
  promising_windows_ = 0;
  drifted_windows_ = 0;
  proposal_.reset();
  profiles_.clear();
  fresh_.clear();
}

void Planner::rest(bool gained) {
  rest_iterations_ = gained ? options_.replan.iterations_between : std::min(2 * rest_iterations_, kRestMax);
}

}  // namespace poseidon::cluster
