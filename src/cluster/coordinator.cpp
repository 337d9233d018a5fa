#include "cluster/coordinator.h"

#include <algorithm>

#include "base/log.h"
#include "base/text.h"
#include "session/send_scheduler.h"

namespace poseidon::cluster {
namespace {

constexpr Epoch kFirstEpoch{1};

// A member's first number is its rank; the two part ways when members are lost or join later.
Rank rank_of(Member member) { return Rank{static_cast<std::int32_t>(index(member))}; }
Member member_of(Rank rank) { return Member{static_cast<std::uint32_t>(index(rank))}; }

// How a parameter reads in a complaint.
std::string described(const TensorSpec& tensor) {
  return base::concat(tensor.name, " as ", base::readable_shape(tensor.shape), " ", to_string(tensor.dtype));
}

}  // namespace

Coordinator::Coordinator(runtime::Runtime& runtime, runtime::Transport& transport, CoordinatorOptions options,
                         CoordinatorListener listener)
    : runtime_(runtime), transport_(transport), options_(std::move(options)), listener_(std::move(listener)),
      silence_(options_.heartbeat.silent_intervals_max) {
  enter(Phase::kJoining);
  transport_.set_listener({.on_up = [this](Member peer) { silence_.watch(peer); },
                           .on_down = [this](Member peer, const Error& why) { on_link_down(peer, why); },
                           .on_alive = [this](Member peer) { silence_.heard(peer); }});
  transport_.set_body_handler(wire::FrameType::kControl, [this](Member from, const wire::FrameHeader&, std::vector<std::byte> body) {
    const Result<Message> message = decode(body);
    if (!message) return abort(Error{message.error().code, base::concat(describe(rank_of(from)), ": ", message.error().message)});
    on_message(from, *message);
  });
  timer_ = runtime_.after(options_.heartbeat.interval, [this] { tick(); });
}

Coordinator::~Coordinator() {
  *alive_ = false;
  runtime_.cancel(timer_);
  transport_.set_listener({});
  transport_.set_body_handler(wire::FrameType::kControl, {});
}

std::string Coordinator::describe(Rank rank) const {
  const auto found = joined_.find(rank);
  return found == joined_.end() ? base::concat("rank ", index(rank)) : found->second.self.text();
}

void Coordinator::enter(Phase phase) {
  phase_ = phase;
  phase_since_ = runtime_.now();
  next_explanation_ = options_.explain_after;
  answered_.clear();
}

bool Coordinator::everybody(Rank rank) {
  answered_.insert(rank);
  return answered_.size() == static_cast<std::size_t>(options_.workers);
}

void Coordinator::send_to_all(const Message& message) {
  for (const auto& [rank, join] : joined_) send(transport_, member_of(rank), message);
}

void Coordinator::on_message(Member from, const Message& message) {
  const Rank rank = rank_of(from);
  if (over()) {
    // Who comes late shall not wait for a job that has ended.
    if (failure_ && std::get_if<Join>(&message) != nullptr) send(transport_, from, Abort{failure_->code, failure_->message});
    return;
  }
  if (const auto* join = std::get_if<Join>(&message)) return on_join(from, *join);
  if (std::get_if<Alive>(&message) != nullptr) return;
  if (const auto* failed = std::get_if<Failed>(&message)) {
    return abort(Error{failed->code, base::concat(describe(rank), " failed: ", failed->message)});
  }
  if (!joined_.contains(rank)) return;
  if (const auto* lost = std::get_if<PeerLost>(&message)) {
    if (!left_.contains(lost->peer)) suspect(lost->peer, base::concat(describe(rank), " lost its link to it: ", lost->why));
    return;
  }
  if (std::get_if<Linked>(&message) != nullptr && phase_ == Phase::kLinking) {
    if (!everybody(rank)) return;
    if (options_.workers == 1) return make_plan();
    enter(Phase::kMeasuring);
    return send_to_all(Measure{});
  }
  if (const auto* speeds = std::get_if<Speeds>(&message); speeds != nullptr && phase_ == Phase::kMeasuring) {
    speeds_[rank] = speeds->speeds;
    if (everybody(rank)) make_plan();
    return;
  }
  if (std::get_if<Ready>(&message) != nullptr && phase_ == Phase::kPlanning) {
    if (!everybody(rank)) return;
    enter(Phase::kRunning);
    send_to_all(Start{});
    if (listener_.on_start) listener_.on_start();
    return;
  }
  if (const auto* note = std::get_if<Note>(&message)) {
    if (listener_.on_note) listener_.on_note(rank, note->body);
    return;
  }
  if (const auto* gather = std::get_if<Gather>(&message)) return on_gather(rank, *gather);
  if (const auto* paused = std::get_if<Paused>(&message)) {
    limits_[rank] = paused->limit;
    return stop_when_all_paused();
  }
  if (std::get_if<Leave>(&message) != nullptr) return on_leave(rank);
  base::log::debug(base::concat(describe(rank), " sent a message out of turn"));
}

void Coordinator::on_join(Member from, const Join& join) {
  const Rank rank = rank_of(from);
  if (phase_ != Phase::kJoining || joined_.contains(rank) || join.self.rank != rank) {
    return send(transport_, from, Abort{ErrorCode::kRefused, base::concat("rank ", index(rank), " cannot join: the job has begun")});
  }
  const Status same = joined_.empty() ? Status() : compare(join, joined_.begin()->second);
  // Also one that differs is among those who hear why the job is over, and at once.
  joined_[rank] = join;
  if (!same) return abort(same.error());
  if (joined_.size() == static_cast<std::size_t>(options_.workers)) open_epoch();
}

Status Coordinator::compare(const Join& join, const Join& first) const {
  const auto differ = [&](const std::string& what) {
    return Error{ErrorCode::kRefused,
                 base::concat("the workers' models differ: ", what,
                              "; all workers must build the same net in the same order (same files, same program version)")};
  };
  const auto& a = first.model.tensors;
  const auto& b = join.model.tensors;
  const std::string who_a = first.self.text();
  const std::string who_b = join.self.text();
  for (std::size_t t = 0; t < std::min(a.size(), b.size()); ++t) {
    if (a[t].name == b[t].name && a[t].shape == b[t].shape && a[t].dtype == b[t].dtype) continue;
    return differ(base::concat(who_b, " has ", described(b[t]), ", ", who_a, " has ", described(a[t])));
  }
  if (a.size() != b.size()) {
    const auto& longer = a.size() > b.size() ? a : b;
    return differ(base::concat("only ", a.size() > b.size() ? who_a : who_b, " has ", described(longer[std::min(a.size(), b.size())])));
  }
  for (std::size_t l = 0; l < std::min(first.model.layers.size(), join.model.layers.size()); ++l) {
    const LayerSpec& x = first.model.layers[l];
    const LayerSpec& y = join.model.layers[l];
    if (x.name == y.name && x.tensors == y.tensors && x.factor_rows == y.factor_rows) continue;
    return differ(base::concat(who_b, " has layer ", y.name, " with up to ", y.factor_rows, " rows of factors, ", who_a, " has ",
                               x.name, " with ", x.factor_rows));
  }
  if (first.model.layers.size() != join.model.layers.size()) return differ("they have different numbers of layers");
  return {};
}

void Coordinator::open_epoch() {
  OpenEpoch open{kFirstEpoch, {}};
  for (const auto& [rank, join] : joined_) open.members.push_back(join.self);
  enter(Phase::kLinking);
  send_to_all(open);
}

// The slowest member decides: all wait for it.
plan::Speeds Coordinator::slowest() const {
  plan::Speeds speeds;
  bool is_first = true;
  for (const auto& [rank, own] : speeds_) {
    if (is_first) {
      speeds = own;
      is_first = false;
      continue;
    }
    speeds.link_bytes_per_second = std::min(speeds.link_bytes_per_second, own.link_bytes_per_second);
    speeds.latency_seconds = std::max(speeds.latency_seconds, own.latency_seconds);
    speeds.flops_per_second = std::min(speeds.flops_per_second, own.flops_per_second);
    speeds.sum_bytes_per_second = std::min(speeds.sum_bytes_per_second, own.sum_bytes_per_second);
  }
  if (options_.link_bytes_per_second) speeds.link_bytes_per_second = *options_.link_bytes_per_second;
  return speeds;
}

// What only the workers together can tell about a given plan.
Status Coordinator::check_given(const plan::Plan& plan, bool alike) const {
  const auto wrong = std::find_if(plan.layers.begin(), plan.layers.end(), [](const auto& l) { return l.scheme == Scheme::kSfb; });
  if (!alike && wrong != plan.layers.end()) {
    return Error{ErrorCode::kInvalid,
                 base::concat(options_.plan_name, ": layer ", wrong->name, " cannot use sfb: the workers' processors or thread ",
                              "counts differ, so their replicas would not stay equal")};
  }
  for (const std::vector<Rank>& group : plan.hosts) {
    const std::string& machine = joined_.at(group.front()).self.machine;
    for (const Rank rank : group) {
      if (rank == group.front() || (!machine.empty() && joined_.at(rank).self.machine == machine)) continue;
      return Error{ErrorCode::kInvalid,
                   base::concat(options_.plan_name, ": its \"hosts\" put ", describe(group.front()), " and ", describe(rank),
                                " on one host, but they cannot share memory: they run on two, or in two containers, or as two users")};
    }
  }
  return {};
}

Result<plan::Plan> Coordinator::chosen_plan(const plan::Speeds& speeds, std::vector<plan::LayerChoice>& choices) const {
  const Model& model = joined_.begin()->second.model;
  const bool alike = std::all_of(joined_.begin(), joined_.end(), [&](const auto& entry) {
    return entry.second.arithmetic == joined_.begin()->second.arithmetic;
  });
  if (options_.plan_json) {
    Result<plan::Plan> given = plan::parse_plan(*options_.plan_json, model, options_.workers);
    if (!given) return Error{given.error().code, base::concat(options_.plan_name, ": ", given.error().message)};
    if (const Status status = check_given(*given, alike); !status) return status.error();
    return given;
  }
  std::vector<std::string> machines;
  for (const auto& [rank, join] : joined_) machines.push_back(join.self.machine);
  plan::HostGroups hosts = plan::group_by_machine(machines, options_.per_host);
  const int nodes = hosts.empty() ? options_.workers : static_cast<int>(hosts.size());
  Result<std::vector<plan::LayerChoice>> chosen = plan::choose(plan::network_model(model, hosts), nodes, options_.schemes, speeds, alike);
  if (!chosen) return chosen.error();
  choices = std::move(*chosen);
  plan::Plan plan = plan::plan_of(choices, nodes);
  plan.workers = options_.workers;
  plan.hosts = std::move(hosts);
  return plan;
}

void Coordinator::make_plan() {
  const plan::Speeds speeds = slowest();
  std::vector<plan::LayerChoice> choices;
  const Result<plan::Plan> plan = chosen_plan(speeds, choices);
  if (!plan) return abort(plan.error());
  if (listener_.on_plan) listener_.on_plan(*plan, choices, speeds, joined_.begin()->second.model);
  enter(Phase::kPlanning);
  send_to_all(UsePlan{plan::to_json(*plan), session::window_bytes_for({.link_bytes_per_second = speeds.link_bytes_per_second,
                                                                         .latency_seconds = speeds.latency_seconds,
                                                                         .dilation = options_.dilation})});
}

void Coordinator::on_gather(Rank rank, const Gather& gather) {
  std::map<Rank, std::string>& parts = gatherings_[gather.number];
  parts[rank] = gather.body;
  if (parts.size() < static_cast<std::size_t>(options_.workers)) return;
  Gathered all{gather.number, {}};
  for (auto& [who, body] : parts) all.bodies.push_back(std::move(body));
  gatherings_.erase(gather.number);
  send_to_all(all);
}

void Coordinator::request_stop() {
  if (stopping_ || over()) return;
  stopping_ = true;
  // Before the start there is nothing that an orderly stop would keep, and whom all wait for may never come.
  if (phase_ != Phase::kRunning) return abort(Error{ErrorCode::kAborted, "interrupted before the training began"});
  send_to_all(Pause{});
}

// Every worker has promised to begin nothing beyond its limit, so nobody is further than the furthest limit, and all can still
// get there: that iteration is the last for all.
void Coordinator::stop_when_all_paused() {
  if (!stopping_ || phase_ != Phase::kRunning) return;
  Iteration last = 0;
  for (const auto& [rank, join] : joined_) {
    if (left_.contains(rank)) continue;
    const auto limit = limits_.find(rank);
    if (limit == limits_.end()) return;
    last = std::max(last, limit->second);
  }
  send_to_all(StopAfter{last});
}

void Coordinator::on_leave(Rank rank) {
  left_.insert(rank);
  if (left_.size() < static_cast<std::size_t>(options_.workers)) return stop_when_all_paused();
  enter(Phase::kFinished);
  if (listener_.on_finish) listener_.on_finish();
  send_to_all(Goodbye{});
}

void Coordinator::on_link_down(Member peer, const Error& why) {
  silence_.forget(peer);
  if (!over()) suspect(rank_of(peer), why.message);
}

void Coordinator::suspect(Rank rank, const std::string& why) {
  runtime_.after(options_.death_grace, [this, alive = alive_, rank, why] {
    if (!*alive || over()) return;
    abort(Error{ErrorCode::kPeerLost, base::concat(describe(rank), " died or cannot be reached: ", why)});
  });
}

void Coordinator::abort(const Error& why) {
  if (over()) return;
  enter(Phase::kFailed);
  failure_ = why;
  send_to_all(Abort{why.code, why.message});
  if (listener_.on_fail) listener_.on_fail(why);
}

void Coordinator::tick() {
  timer_ = runtime_.after(options_.heartbeat.interval, [this] { tick(); });
  if (over()) return;
  send_to_all(Alive{});
  for (const Member peer : silence_.tick()) {
    const double silent = std::chrono::duration<double>(options_.heartbeat.interval).count() * options_.heartbeat.silent_intervals_max;
    abort(Error{ErrorCode::kPeerLost, base::concat(describe(rank_of(peer)), " has not been heard of for ",
                                                   base::readable_seconds(silent), ": its host or its network is down, or it is stopped")});
    return;
  }
  check_deadline();
}

std::vector<std::string> Coordinator::missing() const {
  std::vector<std::string> names;
  for (int r = 0; r < options_.workers; ++r) {
    const bool is_there = phase_ == Phase::kJoining ? joined_.contains(Rank{r}) : answered_.contains(Rank{r});
    if (!is_there) names.push_back(describe(Rank{r}));
  }
  return names;
}

void Coordinator::check_deadline() {
  if (phase_ == Phase::kRunning) return;
  const runtime::Duration waited = runtime_.now() - phase_since_;
  const char* const what = phase_ == Phase::kJoining    ? "to join"
                           : phase_ == Phase::kLinking  ? "to connect to the other workers"
                           : phase_ == Phase::kMeasuring ? "to measure its link"
                                                         : "to install the plan";
  const std::string text = base::concat("waiting for ", base::join_words(missing()), " ", what, " since ",
                                        base::readable_seconds(std::chrono::duration<double>(waited).count()));
  const runtime::Duration most = phase_ == Phase::kJoining ? options_.join_max : options_.phase_max;
  if (waited >= most) return abort(Error{ErrorCode::kTimeout, base::concat("gave up ", text)});
  if (waited < next_explanation_) return;
  next_explanation_ = 2 * waited;
  if (listener_.on_wait) listener_.on_wait(text);
}

}  // namespace poseidon::cluster
