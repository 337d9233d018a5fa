#include "cluster/planner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <utility>

#include "base/text.h"
#include "plan/partition.h"

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

// Whether the workers of each group can share memory.
Status can_share(const plan::HostGroups& hosts, const std::vector<WorkerPlace>& places) {
  const auto place_of = [&](Rank rank) -> const WorkerPlace& { return places[static_cast<std::size_t>(index(rank))]; };
  for (const std::vector<Rank>& group : hosts) {
    const WorkerPlace& leader = place_of(group.front());
    for (const Rank rank : group) {
      if (rank == group.front() || (!leader.machine.empty() && place_of(rank).machine == leader.machine)) continue;
      return Error{ErrorCode::kInvalid,
                   base::concat("its \"hosts\" put ", leader.name, " and ", place_of(rank).name,
                                " on one host, but they cannot share memory: they run on two, or in two containers, or as two users")};
    }
  }
  return {};
}

// The links of those who speak for their hosts.
plan::LinkRates rates_of_leaders(const plan::LinkRates& links, const plan::HostGroups& hosts) {
  plan::LinkRates rates{{}, links.servers};
  for (const Rank leader : plan::leaders_of(hosts)) rates.workers.push_back(links.workers[static_cast<std::size_t>(index(leader))]);
  return rates;
}

}  // namespace

std::optional<plan::ServerShares> Planner::who_serves() const {
  const bool are_alike = std::adjacent_find(links_.workers.begin(), links_.workers.end(), std::not_equal_to<>()) == links_.workers.end();
  // What one of two workers owns does not change what their links carry.
  if (options_.servers == 0 && (are_alike || links_.workers.size() <= 2)) return std::nullopt;
  return plan::server_shares(links_, options_.colocated);
}

Status Planner::complete(plan::Plan& plan, bool alike, const std::vector<WorkerPlace>& places) const {
  const auto wrong = std::find_if(plan.layers.begin(), plan.layers.end(), [](const auto& l) { return l.scheme == Scheme::kSfb; });
  if (!alike && wrong != plan.layers.end()) {
    return Error{ErrorCode::kInvalid, base::concat("layer ", wrong->name, " cannot use sfb: the workers' processors or thread counts ",
                                                   "differ, so their replicas would not stay equal")};
  }
  if (options_.wire && plan.wire != options_.wire) {
    return Error{ErrorCode::kInvalid,
                 base::concat("in this plan gradients travel as ", plan.wire ? to_string(*plan.wire) : "they are", ", not as ",
                              to_string(*options_.wire), "; a plan fixes every bit, so repeat it without --wire")};
  }
  if (const Status status = can_share(plan.hosts, places); !status) return status;
  if (!plan.hosts.empty() && options_.servers > 0) {
    return Error{ErrorCode::kInvalid, base::concat("its workers combine in the memory of their hosts, which serve each other: it cannot be "
                                                   "used with ", options_.servers, " dedicated servers")};
  }
  // A plan without shares is none for these servers, or none for any: who serves changes no bit.
  if (plan.server_shares.empty() && options_.servers > 0) plan.server_shares = plan::parts_per_million(who_serves()->of_node);
  const int dedicated = plan.nodes() - plan::nodes_of(plan);
  if (dedicated != options_.servers) {
    return Error{ErrorCode::kInvalid, base::concat("it was made for ", dedicated, " dedicated servers, this job has ",
                                                   options_.servers)};
  }
  return {};
}

Status Planner::use_given(const Model& model, bool alike, const std::vector<WorkerPlace>& places, Iteration first, bool replans) {
  const auto invalid = [this](const auto&... words) {
    return Error{ErrorCode::kInvalid, base::concat(options_.plan_name, ": ", words...)};
  };
  Result<plan::PlanSequence> given = plan::parse_plan_sequence(*options_.plan_json, model, options_.workers);
  if (!given) return invalid(given.error().message);
  given_ = std::move(*given);
  for (std::size_t v = 0; v < given_.size(); ++v) {
    const Status status = complete(given_[v].plan, alike, places);
    if (status) continue;
    return invalid(given_.size() == 1 ? "" : base::concat("version ", v, ": "), status.error().message);
  }
  const std::size_t now = plan::version_at(given_, first);
  plan_ = given_[now].plan;
  given_next_ = now + 1;
  if (given_next_ < given_.size() && !replans) {
    return invalid("it changes at iteration ", given_[given_next_].from, ", and these workers keep to the plan that they begin with");
  }
  return {};
}

Result<std::vector<plan::LayerChoice>> Planner::begin(const Model& model, bool alike, const Figures& figures, Iteration first,
                                                      bool replans) {
  std::vector<std::string> machines;
  for (const WorkerPlace& place : figures.places) machines.push_back(place.machine);
  plan::HostGroups hosts = plan::group_by_machine(machines, options_.plan_json ? plan::PerHost::kOff : options_.per_host);
  const int nodes = hosts.empty() ? options_.workers : static_cast<int>(hosts.size());
  model_ = plan::model_on_wire(plan::network_model(model, hosts), nodes, options_.wire);
  alike_ = alike;
  speeds_ = figures.speeds;
  links_ = hosts.empty() ? figures.links : rates_of_leaders(figures.links, hosts);
  last_change_ = first;
  rest_iterations_ = options_.replan.iterations_between;
  if (options_.plan_json) {
    if (const Status status = use_given(model, alike, figures.places, first, replans); !status) return status.error();
    return std::vector<plan::LayerChoice>();
  }
  if (!hosts.empty() && options_.servers > 0) {
    return Error{ErrorCode::kInvalid, "workers that combine in the memory of their host serve each other: there is no place for dedicated servers"};
  }
  const std::optional<plan::ServerShares> serving = who_serves();
  Result<std::vector<plan::LayerChoice>> choices =
      plan::choose(model_, nodes, options_.schemes, speeds_, alike, serving ? &*serving : nullptr);
  if (!choices) return choices.error();
  plan_ = plan::plan_of(*choices, nodes);
  plan_.workers = options_.workers;
  plan_.wire = options_.wire;
  plan_.chunk_bytes = plan::chunk_bytes_for(speeds_.link_bytes_per_second, speeds_.latency_seconds);
  if (serving) plan_.server_shares = plan::parts_per_million(serving->of_node);
  plan_.hosts = std::move(hosts);
  watches_ = options_.replan.enabled && replans && plan_.hosts.empty() && plan::has_choice(model_, options_.workers, options_.schemes);
  return choices;
}

void Planner::begin_provisionally(const Model& model, const Figures& figures, Iteration first) {
  model_ = plan::model_on_wire(model, options_.workers, options_.wire);
  alike_ = false;
  watches_ = false;
  speeds_ = figures.speeds;
  links_ = figures.links;
  last_change_ = first;
  given_.clear();
  given_next_ = 0;
  const std::optional<plan::ServerShares> serving = who_serves();
  plan_ = {.workers = options_.workers, .layers = {}};
  for (const LayerSpec& layer : model.layers) plan_.layers.push_back({layer.name, Scheme::kPs, {}, Rank{0}});
  plan_.wire = options_.wire;
  plan_.chunk_bytes = plan::chunk_bytes_for(speeds_.link_bytes_per_second, speeds_.latency_seconds);
  if (serving) plan_.server_shares = plan::parts_per_million(serving->of_node);
}

std::optional<plan::PlanVersion> Planner::next_given() const {
  return given_next_ < given_.size() ? std::optional(given_[given_next_]) : std::nullopt;
}

plan::Schedule Planner::schedule(const plan::Plan& plan) const {
  plan::Schedule schedule{&model_, options_.workers, speeds_, {}, {}};
  if (!plan.server_shares.empty()) {
    std::vector<double> shares(plan.server_shares.begin(), plan.server_shares.end());
    const double all = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (double& share : shares) share /= all;
    schedule.dense_seconds_per_byte = plan::busiest_link_seconds(links_, shares);
  }
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
    const plan::LayerSize size = *plan::factor_size(model_, model_.layers[l]);
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

std::optional<PlanChange> Planner::better_plan(const std::string& why, const std::vector<std::uint32_t>& serving) const {
  plan::Plan served = plan_;
  served.server_shares = serving;
  const plan::Schedule then = schedule(served);
  plan::Plan best = plan::best_plan(then, options_.schemes, alike_, served);
  if (best == plan_ || std::find(disproved_.begin(), disproved_.end(), best) != disproved_.end()) return std::nullopt;
  const double before = plan::iteration_seconds(schedule(plan_), plan_);
  const double after = plan::iteration_seconds(then, best);
  if (after > (1 - options_.replan.gain_min) * before) return std::nullopt;
  std::string what = plan::difference(plan_, best);
  return PlanChange{0, std::move(best), why, std::move(what), before, after, speeds_};
}

Result<Planner::Wish> Planner::on_profile(Rank rank, const plan::Profile& profile) {
  if (profile.layers.size() != model_.layers.size()) {
    return Error{ErrorCode::kCorruptFrame, base::concat("it told the times of ", profile.layers.size(), " layers, the model has ",
                                                        model_.layers.size())};
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
  proposal_ = better_plan(blind_ ? "the first plan took each layer by itself" : "the layers' computing times have changed",
                          plan_.server_shares);
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

std::optional<PlanChange> Planner::measured(const Figures& figures) {
  const std::string what = changed_figures(speeds_, figures.speeds);
  speeds_ = figures.speeds;
  links_ = figures.links;
  disproved_.clear();
  reference_seconds_.reset();
  drifted_windows_ = 0;
  Iteration iteration = 0;
  for (const auto& [rank, profile] : profiles_) iteration = std::max(iteration, profile.iteration);
  last_change_ = iteration;
  const std::optional<plan::ServerShares> serving = who_serves();
  std::optional<PlanChange> change = better_plan(what.empty() ? measured_why_ : base::concat(measured_why_, "; ", what),
                                                 serving ? plan::parts_per_million(serving->of_node) : std::vector<std::uint32_t>());
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
