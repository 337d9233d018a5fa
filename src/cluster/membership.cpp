#include "cluster/membership.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "plan/plan.h"

namespace poseidon::cluster {

using runtime::kCoordinator;

Membership::Membership(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute,
                       MembershipOptions options, MembershipListener listener)
    : runtime_(runtime), transport_(transport), compute_(compute), options_(std::move(options)), listener_(std::move(listener)),
      link_probe_(runtime, transport), silence_(options_.heartbeat.silent_intervals_max), next_(options_.first) {
  transport_.set_listener({.on_up = [this](Member peer) { on_up(peer); },
                           .on_down = [this](Member peer, const Error& why) { on_down(peer, why); },
                           .on_alive = [this](Member peer) { silence_.heard(peer); }});
  transport_.set_body_handler(wire::FrameType::kControl, [this](Member from, const wire::FrameHeader&, std::vector<std::byte> body) {
    if (!is_coordinator(from)) return;  // members have nothing to order each other
    const Result<Message> message = decode(body);
    if (!message) return end(message.error());
    on_message(*message);
  });
  timer_ = runtime_.after(options_.heartbeat.interval, [this] { tick(); });
}

Membership::~Membership() {
  *alive_ = false;
  runtime_.cancel(timer_);
  transport_.set_listener({});
  transport_.set_body_handler(wire::FrameType::kControl, {});
}

void Membership::join() {
  // The arithmetic first: its digest goes into the request.
  probe_compute(runtime_, compute_, [this, alive = alive_](const Result<ComputeSpeed>& speed) {
    if (!*alive) return;
    if (!speed) return end(speed.error());
    compute_speed_ = *speed;
    transport_.connect(kCoordinator, options_.coordinator, options_.connect_max);
  });
}

void Membership::on_up(Member peer) {
  if (!is_coordinator(peer)) {
    up_.insert(peer);
    return linked_if_all_up();
  }
  coordinator_up_ = true;
  silence_.watch(peer);
  tell(Join{options_.self, options_.model, compute_speed_->digest, options_.first, options_.replans, options_.provisional});
}

void Membership::on_down(Member peer, const Error& why) {
  silence_.forget(peer);
  if (failed_) return;
  if (is_coordinator(peer)) {
    if (coordinator_up_) {
      return end(Error{ErrorCode::kPeerLost, base::concat("the launcher is gone: ", why.message)});
    }
    return end(Error{why.code, base::concat("cannot reach the job's coordinator: ", why.message)});
  }
  up_.erase(peer);
  // Those who have left in order close their links; so do we, once all have.
  if (left_ || goodbye_) return;
  const Rank rank{static_cast<std::int32_t>(index(peer))};
  tell(PeerLost{rank, why.message});
  runtime_.after(options_.verdict_max, [this, alive = alive_, rank, why] {
    // A dedicated server never leaves: workers that have heard the goodbye close their links, and ours comes a moment later.
    if (!*alive || goodbye_) return;
    end(Error{ErrorCode::kPeerLost, base::concat("the link to ", plan::node_name(rank, options_.workers), " broke: ", why.message)});
  });
}

void Membership::on_message(const Message& message) {
  if (failed_) return;
  if (const auto* abort = std::get_if<Abort>(&message)) return end(Error{abort->code, abort->message});
  if (const auto* epoch = std::get_if<OpenEpoch>(&message)) return on_epoch(*epoch);
  if (const auto* request = std::get_if<Measure>(&message)) return on_measure(*request);
  if (const auto* plan = std::get_if<UsePlan>(&message)) {
    next_hold_ = plan->until;
    if (epoch_ && listener_.on_plan) listener_.on_plan(*epoch_, *plan);
    return;
  }
  if (std::get_if<Start>(&message) != nullptr) return on_start();
  if (const auto* gathered = std::get_if<Gathered>(&message)) {
    if (listener_.on_gathered) listener_.on_gathered(gathered->bodies);
    return;
  }
  if (const auto* pause = std::get_if<Pause>(&message)) return answer_pause(pause->number);
  if (const auto* hold = std::get_if<HoldBefore>(&message)) {
    hold_ = hold->iteration;
    paused_ = false;
    return settle_begin();
  }
  if (std::get_if<GoOn>(&message) != nullptr) {
    hold_.reset();
    settling_ = false;
    paused_ = false;
    return settle_begin();
  }
  if (const auto* stop = std::get_if<StopAfter>(&message)) {
    last_ = stop->iteration;
    paused_ = false;
    return settle_begin();
  }
  if (const auto* left = std::get_if<Left>(&message)) {
    if (!gone_ || left->next < gone_->next) gone_ = *left;
    fail_if_alone();
    return;
  }
  if (std::get_if<Goodbye>(&message) != nullptr) {
    goodbye_ = true;
    if (listener_.on_goodbye) listener_.on_goodbye();
  }
}

void Membership::on_epoch(const OpenEpoch& epoch) {
  if (epoch.members.size() != static_cast<std::size_t>(options_.workers + options_.servers)) {
    return fail(Error{ErrorCode::kCorruptFrame, base::concat("an epoch of ", epoch.members.size(), " members, this job has ",
                                                             options_.workers + options_.servers)});
  }
  epoch_ = epoch;
  transport_.set_epoch(epoch.epoch);
  // Of each pair the one with the higher rank calls, so that there is one link and not two.
  for (const MemberInfo& info : epoch.members) {
    if (index(info.rank) < index(options_.self.rank)) transport_.connect(info.member, info.endpoints, options_.connect_max);
  }
  linked_if_all_up();
}

void Membership::linked_if_all_up() {
  if (!epoch_ || told_linked_ || up_.size() + 1 < epoch_->members.size()) return;
  told_linked_ = true;
  tell(Linked{});
}

void Membership::on_start() {
  hold_ = std::exchange(next_hold_, std::nullopt);
  settling_ = false;
  if (started_) return settle_begin();
  started_ = true;
  if (listener_.on_start) listener_.on_start();
}

void Membership::on_measure(const Measure& request) {
  if (!epoch_ || epoch_->members.size() < 2) return;
  if (request.shift == 0 || request.shift >= epoch_->members.size()) {
    return fail(Error{ErrorCode::kCorruptFrame, base::concat("cannot measure the link to the worker ", request.shift, " ranks further")});
  }
  if (!request.arithmetic) return measure_link(request.shift);
  probe_compute(runtime_, compute_, [this, alive = alive_, shift = request.shift](const Result<ComputeSpeed>& speed) {
    if (!*alive || failed_) return;
    if (!speed) return fail(speed.error());
    compute_speed_ = *speed;
    measure_link(shift);
  });
}

void Membership::measure_link(std::uint32_t shift) {
  const std::size_t next = (static_cast<std::size_t>(index(options_.self.rank)) + shift) % epoch_->members.size();
  link_probe_.measure(epoch_->members[next].member, [this](const LinkSpeed& link) {
    tell(Speeds{{link.bytes_per_second, link.latency_seconds, compute_speed_->flops_per_second, compute_speed_->sum_bytes_per_second}});
  });
}

void Membership::ready() { tell(Ready{}); }

void Membership::settled() {
  if (!failed_) tell(Settled{});
}

void Membership::renew(Renew renewal) {
  if (failed_) return;
  POSEIDON_CHECK(!wants_, "another model while iteration ", *wants_, " waits to begin");
  options_.model = renewal.model;
  next_ = renewal.first;
  started_ = false;
  tell(std::move(renewal));
}

void Membership::tell_profile(const plan::Profile& profile) {
  if (!failed_) tell(Profiled{profile});
}

void Membership::note(const std::string& body) {
  if (!failed_) tell(Note{body});
}

void Membership::gather(const std::string& body) {
  if (!failed_) tell(Gather{gatherings_++, body});
}

void Membership::leave() {
  left_ = true;
  tell(Leave{next_});
}

void Membership::fail(const Error& why) {
  if (failed_) return;
  tell(Failed{why.code, why.message});
  end(why);
}

bool Membership::fail_if_alone() {
  if (!gone_ || next_ <= gone_->next) return false;
  fail(Error{ErrorCode::kInvalid, base::concat(gone_->who, " has ended its work after ", gone_->next, " iterations, but this worker goes on with number ",
                                               next_, " and waits for its gradients: all must compute equally many")});
  return true;
}

void Membership::begin(Iteration iteration, std::function<void(bool)> then) {
  POSEIDON_CHECK(!wants_, "iteration ", iteration, " while ", *wants_, " waits to begin");
  wants_ = iteration;
  then_ = std::move(then);
  settle_begin();
}

void Membership::settle_begin() {
  if (!wants_) return;
  const bool go = !last_ || *wants_ <= *last_;
  if (go && paused_ && *wants_ > *limit_) return;
  if (go && hold_ && *wants_ >= *hold_) {
    if (std::exchange(settling_, true)) return;
    return listener_.on_settle ? listener_.on_settle() : settled();
  }
  if (go) next_ = *wants_ + 1;
  wants_.reset();
  std::exchange(then_, nullptr)(go && !fail_if_alone());
}

void Membership::answer_pause(std::uint64_t number) {
  if (paused_ || last_) return;
  paused_ = true;
  limit_ = wants_ ? *wants_ : next_;
  // What comes after the hold cannot begin yet, so nobody may be asked to get there.
  if (hold_) limit_ = std::min(*limit_, *hold_ - 1);
  tell(Paused{number, *limit_});
}

void Membership::end(const Error& why) {
  if (failed_) return;
  failed_ = true;
  if (listener_.on_fail) listener_.on_fail(why);
  // Whoever waits to begin an iteration need not wait any longer.
  wants_.reset();
  if (then_) std::exchange(then_, nullptr)(false);
}

void Membership::tick() {
  timer_ = runtime_.after(options_.heartbeat.interval, [this] { tick(); });
  if (coordinator_up_ && !failed_) tell(Alive{});
  if (!silence_.tick().empty()) end(Error{ErrorCode::kPeerLost, "the launcher has not been heard of: its host or its network is down"});
}

}  // namespace poseidon::cluster
