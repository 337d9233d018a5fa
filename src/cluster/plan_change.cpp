// The coordinator's part in going over to another plan, between the same two iterations on all workers:
//
//   pausing      everybody promises to begin nothing beyond its own limit, so all can still run up to the furthest of these
//   settling     all run up to there, and each waits for the sums that it is still owed; when all have theirs, nobody needs
//                anything more from anybody, and nothing is on its way
//   measuring    perhaps: links and arithmetic, while nothing else uses them
//   installing   everybody replaces its engine; data flows again when all have
//
// Dedicated servers sum what workers push, so they have nothing to settle: once all workers have their sums, nothing is left with a
// server either. They measure and install with the others.
//
// Plans that were given begin with settling: the iteration is known from the start. Whatever fails ends the job with a name.
#include <algorithm>

#include "base/log.h"
#include "base/text.h"
#include "cluster/coordinator.h"

namespace poseidon::cluster {

void Coordinator::enter(Change change) {
  change_ = change;
  phase_since_ = runtime_.now();
  next_explanation_ = options_.explain_after;
  answered_.clear();
}

bool Coordinator::on_change_message(Rank rank, const Message& message) {
  // Dedicated servers run no iterations: they measure, and install.
  const bool is_of_all = std::holds_alternative<Speeds>(message) || std::holds_alternative<Ready>(message);
  if (!is_of_all && !is_worker(rank)) return false;
  if (const auto* profiled = std::get_if<Profiled>(&message)) {
    on_profile(rank, profiled->profile);
  } else if (std::get_if<Settled>(&message) != nullptr) {
    on_settled(rank);
  } else if (const auto* renew = std::get_if<Renew>(&message)) {
    on_renew(rank, *renew);
  } else if (const auto* speeds = std::get_if<Speeds>(&message)) {
    if (change_ == Change::kMeasuring) on_speeds(rank, speeds->speeds);
  } else if (std::get_if<Ready>(&message) != nullptr) {
    if (change_ == Change::kInstalling && everybody(rank)) started();
  } else {
    return false;
  }
  return true;
}

// Data may be sent: for the first time, or by another plan.
void Coordinator::started() {
  enter(boundary_ ? Change::kSettling : Change::kNone);
  send_to_all(Start{});
}

bool Coordinator::change_plan(plan::Plan plan, const std::string& why) {
  const bool can = all_workers([](const Join& join) { return join.replans; });
  if (!can || phase_ != Phase::kRunning || change_ != Change::kNone || stopping_ || !left_.empty()) return false;
  // Who serves changes no bit, so a plan that does not say leaves that as it is.
  if (plan.server_shares.empty()) plan.server_shares = planner_.plan().server_shares;
  std::string what = plan::difference(planner_.plan(), plan);
  next_ = PlanChange{0, std::move(plan), why, std::move(what), 0, 0, planner_.speeds()};
  enter(Change::kPausing);
  pause();
  return true;
}

void Coordinator::on_profile(Rank rank, const plan::Profile& profile) {
  if (change_ != Change::kNone || stopping_ || !left_.empty()) return;
  const Result<Planner::Wish> wish = planner_.on_profile(rank, profile);
  if (!wish) return abort(Error{wish.error().code, base::concat(describe(rank), ": ", wish.error().message)});
  if (*wish == Planner::Wish::kNothing) return;
  next_ = *wish == Planner::Wish::kReplan ? std::optional(planner_.proposal()) : std::nullopt;
  enter(Change::kPausing);
  pause();
}

// Also while a plan is made for another model: workers answer when they are asked.
void Coordinator::on_paused(Rank rank, const Paused& paused) {
  if (paused.number != pauses_ || !is_worker(rank)) return;  // of a pause that is over
  limits_[rank] = paused.limit;
  if (change_ == Change::kPausing) answered_.insert(rank);
  go_on_when_all_paused();
}

void Coordinator::pause() {
  limits_.clear();
  send_to_workers(Pause{++pauses_});
}

// Every worker has promised to begin nothing beyond its limit, so nobody is further than the furthest limit, and all can still
// get there: that iteration is the last for all, or the last under the present plan.
void Coordinator::go_on_when_all_paused() {
  if ((!stopping_ && change_ != Change::kPausing) || phase_ != Phase::kRunning) return;
  Iteration last = 0;
  for (const auto& [rank, join] : joined_) {
    if (!is_worker(rank) || left_.contains(rank)) continue;
    const auto limit = limits_.find(rank);
    if (limit == limits_.end()) return;
    last = std::max(last, limit->second);
  }
  if (stopping_) {
    // Workers that wait for their next model go on with it up to there.
    if (change_ != Change::kRenewing) enter(Change::kNone);
    return send_to_workers(StopAfter{last});
  }
  boundary_ = last + 1;
  enter(Change::kSettling);
  send_to_workers(HoldBefore{last + 1});
}

void Coordinator::on_settled(Rank rank) {
  if (change_ != Change::kSettling) return;
  if (!left_.empty()) {
    return abort(Error{ErrorCode::kInvalid, base::concat(describe(rank), " waits to begin iteration ", *boundary_, ", but ",
                                                         describe(*left_.begin()), " has left")});
  }
  if (answered_.empty()) {
    // Nobody has waited for anybody before.
    phase_since_ = runtime_.now();
    next_explanation_ = options_.explain_after;
  }
  if (!everybody(rank)) return;
  if (const std::optional<plan::PlanVersion> given = planner_.next_given()) {
    next_ = PlanChange{given->from, given->plan, base::concat("as in ", options_.plan_name),
                       plan::difference(planner_.plan(), given->plan), 0, 0, planner_.speeds()};
  }
  if (next_) return install();
  enter(Change::kMeasuring);
  start_measuring(true);
}

void Coordinator::change_measured() {
  next_ = planner_.measured({slowest(), link_rates()});
  if (next_) return install();
  base::log::info("measured again: the plan stays");
  boundary_.reset();
  enter(Change::kNone);
  send_to_workers(GoOn{});
}

void Coordinator::install() {
  next_->from = *boundary_;
  planner_.changed(*next_);
  if (listener_.on_change) listener_.on_change(*next_);
  next_.reset();
  enter(Change::kInstalling);
  send_plan();
}

// All workers come here by themselves, before the same iteration, so that a change of plan that was being agreed on has lost its sense.
void Coordinator::on_renew(Rank rank, const Renew& renew) {
  if (!left_.empty()) return abort(left_while_renewing(rank));
  if (change_ != Change::kRenewing) {
    const bool others_wait = change_ == Change::kMeasuring || change_ == Change::kInstalling || (change_ == Change::kSettling && !answered_.empty());
    if (others_wait) {
      return abort(Error{ErrorCode::kInvalid, base::concat(describe(rank), " trains another model from iteration ", renew.first, " on, but ",
                                                           "others wait for another plan before it")});
    }
    if (change_ != Change::kNone) send_to_workers(GoOn{});
    boundary_.reset();
    next_.reset();
    renewed_values_.clear();
    enter(Change::kRenewing);
  }
  Join& join = joined_[rank];
  join.model = renew.model;
  join.first = renew.first;
  join.provisional = false;
  renewed_values_[rank] = renew.values;
  if (!everybody(rank)) return;
  if (const Status same = compare_renewals(); !same) return abort(same.error());
  change_ = Change::kNone;
  measure_and_plan();
}

Status Coordinator::compare_renewals() const {
  const Join& first = joined_.begin()->second;
  for (const auto& [other, theirs] : joined_) {
    if (!is_worker(other)) continue;
    if (const Status same = compare(theirs, first); !same) return same;
    if (theirs.first != first.first) {
      return Error{ErrorCode::kInvalid, base::concat(describe(other), " trains another model from iteration ", theirs.first, " on, ",
                                                     first.self.text(), " from ", first.first, " on")};
    }
    // Whoever waited for values that rank 0 does not send would wait for ever.
    const std::vector<TensorId>& a = renewed_values_.begin()->second;
    const std::vector<TensorId>& b = renewed_values_.at(other);
    const auto differ = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
    if (differ.first == a.end() && differ.second == b.end()) continue;
    const bool others_only = differ.first == a.end() || (differ.second != b.end() && *differ.second < *differ.first);
    const TensorId tensor = others_only ? *differ.second : *differ.first;
    return Error{ErrorCode::kInvalid,
                 base::concat("the workers renew with different values: ", (others_only ? theirs : first).self.text(), " has some for ",
                              first.model.tensors[index(tensor)].name, ", ", (others_only ? first : theirs).self.text(),
                              " has none; all workers must give, or leave out, those of the same tensors")};
  }
  return {};
}

Error Coordinator::left_while_renewing(Rank renewing) const {
  return Error{ErrorCode::kInvalid, base::concat(describe(*left_.begin()), " has left, but ", describe(renewing), " has another model to train")};
}

// Somebody has left: the training is over, and there will be no iteration for another plan.
void Coordinator::cancel_change() {
  const bool others_go_on = change_ != Change::kPausing && !(change_ == Change::kSettling && answered_.empty());
  if (others_go_on) {
    return abort(Error{ErrorCode::kInvalid, base::concat(describe(*left_.begin()), " has left, but others wait to begin iteration ", *boundary_)});
  }
  if (planner_.next_given()) return;  // the hold was there from the start
  boundary_.reset();
  enter(Change::kNone);
  send_to_workers(GoOn{});
}

std::optional<std::string> Coordinator::awaited_change() const {
  switch (change_) {
    case Change::kNone:
      break;
    case Change::kPausing:
      return "to agree on the iteration of the next plan";
    case Change::kSettling:
      if (answered_.empty()) break;  // all are training
      return base::concat("to finish the iterations before ", *boundary_, ", with which another plan begins,");
    case Change::kMeasuring:
      return "to measure its link again";
    case Change::kInstalling:
      return "to install the next plan";
    case Change::kRenewing:
      return base::concat("to come to iteration ", joined_.at(*answered_.begin()).first, ", from which another model is trained,");
  }
  return std::nullopt;
}

}  // namespace poseidon::cluster
