#include "cluster/coordinator.h"

#include <algorithm>
#include <functional>

#include "base/log.h"
#include "base/text.h"
#include "session/send_scheduler.h"

namespace poseidon::cluster {
namespace {

constexpr Epoch kFirstEpoch{1};

// A member's first number is its rank; the two part ways when members are lost or join later.
Rank rank_of(Member member) { return Rank{static_cast<std::int32_t>(index(member))}; }
Member member_of(Rank rank) { return Member{static_cast<std::uint32_t>(index(rank))}; }

// Each round of measuring keeps both directions of every member's link busy: everybody sends to the member so many places further.
// With few members each pair has its turn in each direction; with many, near and far ones.
std::vector<std::uint32_t> measuring_rounds(int members) {
  constexpr int kAllPairsMax = 8;
  std::vector<std::uint32_t> shifts;
  for (int shift = 1; shift < members; shift = members <= kAllPairsMax ? shift + 1 : 2 * shift) {
    shifts.push_back(static_cast<std::uint32_t>(shift));
  }
  return shifts;
}

// How a parameter reads in a complaint.
std::string described(const TensorSpec& tensor) {
  return base::concat(tensor.name, " as ", base::readable_shape(tensor.shape), " ", to_string(tensor.dtype));
}

}  // namespace

Coordinator::Coordinator(runtime::Runtime& runtime, runtime::Transport& transport, CoordinatorOptions options,
                         CoordinatorListener listener)
    : runtime_(runtime), transport_(transport), options_(std::move(options)), listener_(std::move(listener)),
      planner_({.workers = options_.workers,
                .servers = options_.servers,
                .colocated = options_.colocated,
                .schemes = options_.schemes,
                .plan_json = options_.plan_json,
                .plan_name = options_.plan_name,
                .wire = options_.wire,
                .per_host = options_.per_host,
                .replan = options_.replan}),
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
  return found == joined_.end() ? plan::node_name(rank, options_.workers) : found->second.self.text();
}

void Coordinator::enter(Phase phase) {
  phase_ = phase;
  phase_since_ = runtime_.now();
  next_explanation_ = options_.explain_after;
  answered_.clear();
}

bool Coordinator::all_workers(const std::function<bool(const Join&)>& holds) const {
  return std::all_of(joined_.begin(), joined_.end(), [&](const auto& entry) { return !is_worker(entry.first) || holds(entry.second); });
}

bool Coordinator::everybody(Rank rank) {
  answered_.insert(rank);
  return answered_.size() == static_cast<std::size_t>(awaited_nodes());
}

void Coordinator::send_to_all(const Message& message) {
  for (const auto& [rank, join] : joined_) send(transport_, member_of(rank), message);
}

void Coordinator::send_to_workers(const Message& message) {
  for (const auto& [rank, join] : joined_) {
    if (is_worker(rank)) send(transport_, member_of(rank), message);
  }
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
    return measure_and_plan();
  }
  if (const auto* speeds = std::get_if<Speeds>(&message); speeds != nullptr && phase_ == Phase::kMeasuring) {
    return on_speeds(rank, speeds->speeds);
  }
  if (std::get_if<Ready>(&message) != nullptr && phase_ == Phase::kPlanning) {
    if (!everybody(rank)) return;
    enter(Phase::kRunning);
    started();
    if (!std::exchange(begun_, true) && listener_.on_start) listener_.on_start();
    if (stopping_) stop_workers();
    return;
  }
  if (const auto* paused = std::get_if<Paused>(&message)) return on_paused(rank, *paused);
  if (phase_ == Phase::kRunning && on_change_message(rank, message)) return;
  // Dedicated servers have nothing more to say.
  if (!is_worker(rank)) return base::log::debug(base::concat(describe(rank), " sent a message out of turn, or a worker's"));
  if (const auto* note = std::get_if<Note>(&message)) {
    if (listener_.on_note) listener_.on_note(rank, note->body);
    return;
  }
  if (const auto* gather = std::get_if<Gather>(&message)) return on_gather(rank, *gather);
  if (const auto* leave = std::get_if<Leave>(&message)) return on_leave(rank, leave->next);
  base::log::debug(base::concat(describe(rank), " sent a message out of turn"));
}

void Coordinator::on_join(Member from, const Join& join) {
  const Rank rank = rank_of(from);
  if (phase_ != Phase::kJoining || joined_.contains(rank) || join.self.rank != rank) {
    return send(transport_, from, Abort{ErrorCode::kRefused, base::concat("rank ", index(rank), " cannot join: the job has begun")});
  }
  const auto server = is_worker(rank) ? std::nullopt : std::optional(static_cast<std::uint32_t>(index(rank) - options_.workers));
  if (join.self.server != server) {
    const std::string why = base::concat(join.self.text(), " cannot join as ", plan::node_name(rank, options_.workers), ": this job has ",
                                         options_.workers, " workers and ", options_.servers, " dedicated servers");
    return send(transport_, from, Abort{ErrorCode::kRefused, why});
  }
  const bool is_first = joined_.empty() || !is_worker(joined_.begin()->first);
  const Status same = server || is_first ? Status() : compare(join, joined_.begin()->second);
  // Also one that differs is among those who hear why the job is over, and at once.
  joined_[rank] = join;
  if (options_.waits_for_first && !server && is_first) enter(Phase::kJoining);
  if (!same) return abort(same.error());
  if (joined_.size() == static_cast<std::size_t>(nodes())) open_epoch();
}

Status Coordinator::compare(const Join& join, const Join& first) const {
  const auto differ = [&](const std::string& what) {
    return Error{ErrorCode::kRefused,
                 base::concat("the workers' models differ: ", what,
                              "; all workers must build the same net in the same order (same files, same program version)")};
  };
  if (join.self.lanes != first.self.lanes) {
    const auto lanes = [](std::uint32_t count) { return base::concat(count, count == 1 ? " lane" : " lanes"); };
    return Error{ErrorCode::kRefused, base::concat("the workers' lanes differ: ", join.self.text(), " has ", lanes(join.self.lanes), ", ",
                                                   first.self.text(), " has ", lanes(first.self.lanes),
                                                   "; start all workers with the same --lanes")};
  }
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
  if (first.provisional != join.provisional) return differ(base::concat("that of ", first.provisional ? who_a : who_b, " is provisional"));
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
    // Products are made by workers.
    if (is_worker(rank)) speeds.flops_per_second = std::min(speeds.flops_per_second, own.flops_per_second);
    speeds.sum_bytes_per_second = std::min(speeds.sum_bytes_per_second, own.sum_bytes_per_second);
  }
  if (options_.link_bytes_per_second) speeds.link_bytes_per_second = *options_.link_bytes_per_second;
  return speeds;
}

plan::LinkRates Coordinator::link_rates() const {
  const double slowest_link = slowest().link_bytes_per_second;
  plan::LinkRates rates{std::vector<double>(static_cast<std::size_t>(options_.workers), slowest_link),
                        std::vector<double>(static_cast<std::size_t>(options_.servers), slowest_link)};
  const bool on_one_host = std::all_of(joined_.begin(), joined_.end(), [&](const auto& entry) {
    return entry.second.self.host == joined_.begin()->second.self.host;
  });
  // Between members of one host is its memory, and no link: what was measured there tells who was busy just then.
  if (options_.link_bytes_per_second || on_one_host || links_.empty()) return rates;
  // A slow link shows at its own member and at those who sent to it or were sent to: the best of what a member sent and what was
  // sent to it tells whose it is. (A member measured with slow ones alone counts as slow.)
  std::vector<double> best(static_cast<std::size_t>(nodes()), 0);
  for (const MeasuredLink& link : links_) {
    for (const Rank end : {link.from, link.to}) {
      double& rate = best[static_cast<std::size_t>(index(end))];
      rate = std::max(rate, link.bytes_per_second);
    }
  }
  best = plan::steadied(best);
  rates.workers.assign(best.begin(), best.begin() + options_.workers);
  rates.servers.assign(best.begin() + options_.workers, best.end());
  return rates;
}

std::vector<WorkerPlace> Coordinator::places() const {
  std::vector<WorkerPlace> places;
  for (const auto& [rank, join] : joined_) {
    if (is_worker(rank)) places.push_back({join.self.machine, join.self.text()});
  }
  return places;
}

void Coordinator::start_measuring(bool arithmetic) {
  speeds_.clear();
  links_.clear();
  shifts_left_ = measuring_rounds(nodes());
  measure_round(arithmetic);
}

void Coordinator::measure_round(bool arithmetic) {
  answered_.clear();
  send_to_all(Measure{shifts_left_.front(), arithmetic});
}

void Coordinator::on_speeds(Rank rank, const plan::Speeds& speeds) {
  const int to = (index(rank) + static_cast<int>(shifts_left_.front())) % nodes();
  links_.push_back({rank, Rank{to}, speeds.link_bytes_per_second, speeds.latency_seconds});
  const auto [own, is_first] = speeds_.try_emplace(rank, speeds);
  if (!is_first) {
    own->second.link_bytes_per_second = std::min(own->second.link_bytes_per_second, speeds.link_bytes_per_second);
    own->second.latency_seconds = std::max(own->second.latency_seconds, speeds.latency_seconds);
  }
  if (!everybody(rank)) return;
  shifts_left_.erase(shifts_left_.begin());
  if (!shifts_left_.empty()) return measure_round(false);
  if (listener_.on_links) listener_.on_links(links_);
  return phase_ == Phase::kMeasuring ? make_plan() : change_measured();
}

void Coordinator::measure_and_plan() {
  const bool is_provisional = joined_.begin()->second.provisional;
  if (options_.workers == 1 || is_provisional || !speeds_.empty()) return make_plan();
  enter(Phase::kMeasuring);
  start_measuring(false);
}

void Coordinator::make_plan() {
  const Join& first = joined_.begin()->second;
  if (first.provisional) {
    planner_.begin_provisionally(first.model, {slowest(), link_rates()}, first.first);
    enter(Phase::kPlanning);
    return send_plan();
  }
  const bool alike = all_workers([&](const Join& join) { return join.arithmetic == first.arithmetic; });
  const bool replan = all_workers([&](const Join& join) { return join.replans && join.first == first.first; });
  const Result<std::vector<plan::LayerChoice>> choices =
      planner_.begin(first.model, alike, {slowest(), link_rates(), places()}, first.first, replan);
  if (!choices) return abort(choices.error());
  if (listener_.on_plan) listener_.on_plan(planner_.plan(), *choices, planner_.speeds(), first.model);
  enter(Phase::kPlanning);
  send_plan();
}

void Coordinator::send_plan() {
  const plan::Speeds& speeds = planner_.speeds();
  const std::optional<plan::PlanVersion> next = planner_.next_given();
  boundary_ = next ? std::optional(next->from) : std::nullopt;
  UsePlan use{.plan = plan::to_json(planner_.plan()),
              .window_bytes = session::window_bytes_for({.link_bytes_per_second = speeds.link_bytes_per_second,
                                                         .latency_seconds = speeds.latency_seconds,
                                                         .dilation = options_.dilation}),
              .until = boundary_,
              .watch = planner_.watches(),
              .model = {}};
  send_to_workers(use);
  use.model = joined_.begin()->second.model;
  for (const auto& [rank, join] : joined_) {
    if (!is_worker(rank)) send(transport_, member_of(rank), use);
  }
}

Error Coordinator::left_while_gathering(Rank gathering) const {
  return Error{ErrorCode::kInvalid, base::concat(describe(*left_.begin()), " has left, and ", describe(gathering),
                                                 " waits for it: all workers must go through their data equally often")};
}

void Coordinator::on_gather(Rank rank, const Gather& gather) {
  const auto [entry, is_new] = gatherings_.try_emplace(gather.number, Gathering{{}, runtime_.now(), options_.explain_after});
  std::map<Rank, std::string>& parts = entry->second.parts;
  parts[rank] = gather.body;
  if (!left_.empty()) return abort(left_while_gathering(rank));
  if (parts.size() < static_cast<std::size_t>(options_.workers)) return;
  Gathered all{gather.number, {}};
  for (auto& [who, body] : parts) all.bodies.push_back(std::move(body));
  gatherings_.erase(gather.number);
  send_to_workers(all);
}

void Coordinator::request_stop() {
  if (stopping_ || over()) return;
  stopping_ = true;
  // Before the start there is nothing that an orderly stop would keep, and whom all wait for may never come.
  if (!begun_) return abort(Error{ErrorCode::kAborted, "interrupted before the training began"});
  if (phase_ != Phase::kRunning) return;  // until the model that comes is trained
  stop_workers();
}

void Coordinator::stop_workers() {
  if (std::exchange(stop_asked_, true)) return go_on_when_all_paused();
  // Whoever pauses for a change of plan already may as well stop there.
  if (change_ != Change::kPausing) pause();
}

void Coordinator::on_leave(Rank rank, Iteration next) {
  if (left_.empty()) {
    leaving_since_ = runtime_.now();
    next_leaving_explanation_ = options_.explain_after;
  }
  left_.insert(rank);
  if (!gatherings_.empty()) return abort(left_while_gathering(gatherings_.begin()->second.parts.begin()->first));
  if (change_ == Change::kRenewing) return abort(left_while_renewing(*answered_.begin()));
  if (left_.size() < static_cast<std::size_t>(options_.workers)) {
    for (const auto& [other, join] : joined_) {
      if (is_worker(other) && !left_.contains(other)) send(transport_, member_of(other), Left{describe(rank), next});
    }
    if (change_ != Change::kNone && !stopping_) cancel_change();
    return go_on_when_all_paused();
  }
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
  if (!over()) check_gatherings();
  if (!over()) check_leaving();
}

std::vector<std::string> Coordinator::missing() const {
  std::vector<std::string> names;
  for (int r = 0; r < awaited_nodes(); ++r) {
    const bool is_there = phase_ == Phase::kJoining ? joined_.contains(Rank{r}) : answered_.contains(Rank{r});
    if (!is_there) names.push_back(describe(Rank{r}));
  }
  return names;
}

int Coordinator::joined() const {
  return static_cast<int>(std::count_if(joined_.begin(), joined_.end(), [this](const auto& entry) { return is_worker(entry.first); }));
}

// What those who are missing have to do; nothing where nobody is waited for.
std::optional<std::string> Coordinator::awaited() const {
  switch (phase_) {
    case Phase::kJoining:
      return "to join";
    case Phase::kLinking:
      return "to connect to the other members";
    case Phase::kMeasuring:
      return "to measure its link";
    case Phase::kPlanning:
      return "to install the plan";
    case Phase::kRunning:
      return awaited_change();
    case Phase::kFinished:
    case Phase::kFailed:
      break;
  }
  return std::nullopt;
}

void Coordinator::check_deadline() {
  const std::optional<std::string> what = awaited();
  if (!what || (phase_ == Phase::kJoining && options_.waits_for_first && joined() == 0)) return;
  const runtime::Duration waited = runtime_.now() - phase_since_;
  const std::string text = base::concat("waiting for ", base::join_words(missing()), " ", *what, " since ",
                                        base::readable_seconds(std::chrono::duration<double>(waited).count()));
  const runtime::Duration most = phase_ == Phase::kJoining        ? options_.join_max
                                 : change_ == Change::kSettling || change_ == Change::kRenewing ? options_.settle_max
                                                                : options_.phase_max;
  if (waited >= most) return abort(Error{ErrorCode::kTimeout, base::concat("gave up ", text)});
  if (waited < next_explanation_) return;
  next_explanation_ = 2 * waited;
  if (listener_.on_wait) listener_.on_wait(text);
}

void Coordinator::check_gatherings() {
  for (auto& [number, gathering] : gatherings_) {
    const runtime::Duration waited = runtime_.now() - gathering.since;
    if (waited < gathering.next_explanation) continue;
    std::vector<std::string> late, there;
    for (int r = 0; r < options_.workers; ++r) (gathering.parts.contains(Rank{r}) ? there : late).push_back(base::concat("rank ", r));
    const std::string text = base::concat("waiting for ", base::join_words(late), " to come to where ", base::join_words(there),
                                          there.size() == 1 ? " waits" : " wait", " for all workers, since ",
                                          base::readable_seconds(std::chrono::duration<double>(waited).count()));
    if (waited >= options_.settle_max) return abort(Error{ErrorCode::kTimeout, base::concat("gave up ", text)});
    gathering.next_explanation = 2 * waited;
    if (listener_.on_wait) listener_.on_wait(text);
  }
}

// Without a limit: who has work left that the others have not (an evaluation, a file to write) may take as long as it wants.
void Coordinator::check_leaving() {
  if (left_.empty()) return;
  const runtime::Duration waited = runtime_.now() - leaving_since_;
  if (waited < next_leaving_explanation_) return;
  next_leaving_explanation_ = 2 * waited;
  std::vector<std::string> late;
  for (int r = 0; r < options_.workers; ++r) {
    if (!left_.contains(Rank{r})) late.push_back(describe(Rank{r}));
  }
  if (!listener_.on_wait) return;
  listener_.on_wait(base::concat("waiting for ", base::join_words(late), " to leave since ",
                                 base::readable_seconds(std::chrono::duration<double>(waited).count())));
}

}  // namespace poseidon::cluster
