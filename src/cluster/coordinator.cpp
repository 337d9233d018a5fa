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
  return found == joined_.end() ? plan::node_name(rank, options_.workers) : found->second.self.text();
}

void Coordinator::enter(Phase phase) {
  phase_ = phase;
  phase_since_ = runtime_.now();
  next_explanation_ = options_.explain_after;
  answered_.clear();
}

bool Coordinator::everybody(Rank rank) {
  answered_.insert(rank);
  return answered_.size() == static_cast<std::size_t>(nodes());
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
  // Dedicated servers have nothing more to say.
  if (!is_worker(rank)) return base::log::debug(base::concat(describe(rank), " sent a message out of turn, or a worker's"));
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
  if (!same) return abort(same.error());
  if (joined_.size() == static_cast<std::size_t>(nodes())) open_epoch();
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
    // Products are made by workers.
    if (is_worker(rank)) speeds.flops_per_second = std::min(speeds.flops_per_second, own.flops_per_second);
    speeds.sum_bytes_per_second = std::min(speeds.sum_bytes_per_second, own.sum_bytes_per_second);
  }
  if (options_.link_bytes_per_second) speeds.link_bytes_per_second = *options_.link_bytes_per_second;
  return speeds;
}

std::optional<plan::ServerShares> Coordinator::who_serves() const {
  plan::LinkRates links{std::vector<double>(static_cast<std::size_t>(options_.workers), slowest().link_bytes_per_second),
                        std::vector<double>(static_cast<std::size_t>(options_.servers), slowest().link_bytes_per_second)};
  const bool on_one_host = std::all_of(joined_.begin(), joined_.end(), [&](const auto& entry) {
    return entry.second.self.host == joined_.begin()->second.self.host;
  });
  // Between members of one host is its memory, and no link: what was measured there tells who was busy just then.
  if (!options_.link_bytes_per_second && !on_one_host && speeds_.size() == static_cast<std::size_t>(nodes())) {
    // Each member was measured sending to the next one, so a slow link shows at its own member and at the one before: the better
    // of what a member sent and what was sent to it tells whose it is. (A member between two slow ones counts as slow.)
    std::vector<double> rates;
    double before = speeds_.rbegin()->second.link_bytes_per_second;
    for (const auto& [rank, own] : speeds_) {
      rates.push_back(std::max(own.link_bytes_per_second, before));
      before = own.link_bytes_per_second;
    }
    rates = plan::steadied(rates);
    links.workers.assign(rates.begin(), rates.begin() + options_.workers);
    links.servers.assign(rates.begin() + options_.workers, rates.end());
  }
  const bool are_alike = std::adjacent_find(links.workers.begin(), links.workers.end(), std::not_equal_to<>()) == links.workers.end();
  // What one of two workers owns does not change what their links carry.
  if (options_.servers == 0 && (are_alike || options_.workers <= 2)) return std::nullopt;
  return plan::server_shares(links, options_.colocated);
}

Result<plan::Plan> Coordinator::given_plan(const Model& model, const std::optional<plan::ServerShares>& serving, bool alike) const {
  const auto invalid = [this](const std::string& text) {
    return Error{ErrorCode::kInvalid, base::concat(options_.plan_name, ": ", text)};
  };
  Result<plan::Plan> plan = plan::parse_plan(*options_.plan_json, model, options_.workers);
  if (!plan) return invalid(plan.error().message);
  const auto wrong = std::find_if(plan->layers.begin(), plan->layers.end(), [](const auto& l) { return l.scheme == Scheme::kSfb; });
  if (!alike && wrong != plan->layers.end()) {
    return invalid(base::concat("layer ", wrong->name, " cannot use sfb: the workers' processors or thread counts differ, so their ",
                                "replicas would not stay equal"));
  }
  // A plan without shares is none for these servers, or none for any: who serves changes no bit.
  if (plan->server_shares.empty() && options_.servers > 0) plan->server_shares = plan::parts_per_million(serving->of_node);
  if (plan->nodes() != nodes()) {
    return invalid(base::concat("it was made for ", plan->nodes() - options_.workers, " dedicated servers, this job has ",
                                options_.servers));
  }
  return plan;
}

void Coordinator::make_plan() {
  const Model& model = joined_.begin()->second.model;
  const plan::Speeds speeds = slowest();
  const bool alike = std::all_of(joined_.begin(), joined_.end(), [&](const auto& entry) {
    return !is_worker(entry.first) || entry.second.arithmetic == joined_.begin()->second.arithmetic;
  });
  const std::optional<plan::ServerShares> serving = who_serves();
  std::vector<plan::LayerChoice> choices;
  plan::Plan plan;
  if (options_.plan_json) {
    Result<plan::Plan> given = given_plan(model, serving, alike);
    if (!given) return abort(given.error());
    plan = std::move(*given);
  } else {
    Result<std::vector<plan::LayerChoice>> chosen =
        plan::choose(model, options_.workers, options_.schemes, speeds, alike, serving ? &*serving : nullptr);
    if (!chosen) return abort(chosen.error());
    choices = std::move(*chosen);
    plan = plan::plan_of(choices, options_.workers);
    if (serving) plan.server_shares = plan::parts_per_million(serving->of_node);
  }
  if (listener_.on_plan) listener_.on_plan(plan, choices, speeds, model);
  enter(Phase::kPlanning);
  UsePlan use{plan::to_json(plan), session::window_bytes_for({.link_bytes_per_second = speeds.link_bytes_per_second,
                                                              .latency_seconds = speeds.latency_seconds,
                                                              .dilation = options_.dilation}),
              std::nullopt};
  send_to_workers(use);
  use.model = model;
  for (const auto& [rank, join] : joined_) {
    if (!is_worker(rank)) send(transport_, member_of(rank), use);
  }
}

void Coordinator::on_gather(Rank rank, const Gather& gather) {
  std::map<Rank, std::string>& parts = gatherings_[gather.number];
  parts[rank] = gather.body;
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
  if (phase_ != Phase::kRunning) return abort(Error{ErrorCode::kAborted, "interrupted before the training began"});
  send_to_workers(Pause{});
}

// Every worker has promised to begin nothing beyond its limit, so nobody is further than the furthest limit, and all can still
// get there: that iteration is the last for all.
void Coordinator::stop_when_all_paused() {
  if (!stopping_ || phase_ != Phase::kRunning) return;
  Iteration last = 0;
  for (const auto& [rank, join] : joined_) {
    if (!is_worker(rank) || left_.contains(rank)) continue;
    const auto limit = limits_.find(rank);
    if (limit == limits_.end()) return;
    last = std::max(last, limit->second);
  }
  send_to_workers(StopAfter{last});
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
  for (int r = 0; r < nodes(); ++r) {
    const bool is_there = phase_ == Phase::kJoining ? joined_.contains(Rank{r}) : answered_.contains(Rank{r});
    if (!is_there) names.push_back(describe(Rank{r}));
  }
  return names;
}

void Coordinator::check_deadline() {
  if (phase_ == Phase::kRunning) return;
  const runtime::Duration waited = runtime_.now() - phase_since_;
  const char* const what = phase_ == Phase::kJoining    ? "to join"
                           : phase_ == Phase::kLinking  ? "to connect to the other members"
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
