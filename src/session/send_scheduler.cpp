#include "session/send_scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace poseidon::session {

using runtime::Frame;
using runtime::SendRequest;
using wire::kPieceBytes;
using wire::PartHeader;

namespace {

// Parts up to this size share a frame: together they still fill at most one piece, and a header each would cost more than
// 0.5 % of them.
constexpr std::size_t kSmallPartBytes = 16 * 1024;
// With more peers than this, what each may have in flight for itself is more in all than any window, so that the window decides
// nothing, and credit may wait until it goes along with another frame: at most a piece of it, so that the peer's next piece may always
// leave (docs/decisions/0018-a-thousand-nodes.md).
constexpr std::size_t kManyPeers = 64;
constexpr std::size_t kCreditKeptMax = kPeerWindowBytes - kPieceBytes;
// Members below this number are found in an array: half a megabyte at the most.
constexpr std::uint32_t kNearMax = 1 << 16;

}  // namespace

std::size_t window_bytes_for(const WindowQuestion& link) {
  const double bytes = link.link_bytes_per_second * std::max(300e-6 * link.dilation, 4 * link.latency_seconds);
  return static_cast<std::size_t>(std::clamp(bytes, 4.0 * kPieceBytes, 64.0 * (1 << 20)));
}

SendScheduler::SendScheduler(runtime::Runtime& runtime, runtime::Transport& transport, SendSchedulerOptions options)
    : runtime_(runtime), transport_(transport), events_(options.events), window_bytes_(options.window_bytes),
      own_windows_(std::move(options.own_windows)),
      budget_(std::move(options.budget)), lane_(options.lane), tensor_bytes_(options.tensors), first_byte_seen_(options.tensors, 0) {
  transport_.set_receipt_handler([this, alive = alive_](Member from, std::span<const PartHeader> parts, std::uint32_t credit) {
    if (*alive) on_receipt(from, parts, credit);
  });
  if (budget_) budget_->on_wake(lane_, [this] { look_again(); });
}

SendScheduler::~SendScheduler() {
  *alive_ = false;
  if (budget_) budget_->on_wake(lane_, nullptr);
}

SendScheduler::Peer* SendScheduler::find_peer(Member member) {
  if (index(member) < near_.size()) return near_[index(member)];
  if (index(member) < kNearMax) return nullptr;
  const auto found = peers_.find(member);
  return found == peers_.end() ? nullptr : &found->second;
}

SendScheduler::Peer& SendScheduler::peer(Member member) {
  if (Peer* const known = find_peer(member)) return *known;
  Peer& made = peers_[member];
  made.member = member;
  made.own_bytes = own_windows_.bytes(member);
  if (budget_) made.slot = budget_->slot_of(member);
  if (index(member) < kNearMax) {
    if (near_.size() <= index(member)) near_.resize(index(member) + 1, nullptr);
    near_[index(member)] = &made;
  }
  return made;
}

void SendScheduler::enqueue(SendRequest request) {
  Peer& to = peer(request.to);
  const Urgency urgency = Urgency::of(request.priority);
  auto job = std::make_shared<Job>(Job{std::move(request), 0, 0, 0});
  job->bytes = job->request.source.bytes();
  job->pieces_left = std::max<std::size_t>(1, (job->bytes + kPieceBytes - 1) / kPieceBytes);
  Queued entry{urgency, next_sequence_++, std::move(job)};
  if (to.gated && to.gated->gate.is_closed()) {
    const std::optional<wire::ChunkName> name = gated_name(*entry.job);
    if (name && !to.gated->gate.admits(*name)) return keep_back(*to.gated, std::move(entry));
  }
  queue(to, std::move(entry));
  settle(to);
  schedule_pump();
}

void SendScheduler::queue(Peer& peer, Queued entry) {
  peer.jobs.push_back(std::move(entry));
  std::push_heap(peer.jobs.begin(), peer.jobs.end(), Later());
}

std::optional<wire::ChunkName> SendScheduler::gated_name(const Job& job) {
  const PartHeader& part = job.request.part;
  if (part.type != wire::FrameType::kPush || job.bytes == 0) return std::nullopt;
  return wire::ChunkName{part.tensor, job.request.begin, part.iteration};
}

void SendScheduler::keep_back(Gated& gated, Queued entry) {
  if (gated.kept_back.empty()) gated.since = runtime_.now();
  const wire::ChunkName name = *gated_name(*entry.job);
  gated.kept_back.emplace(name, std::move(entry));
}

void SendScheduler::keep_back_what_waits(Peer& peer) {
  const auto waits = [&](const Queued& entry) {
    const std::optional<wire::ChunkName> name = gated_name(*entry.job);
    return name && !peer.gated->gate.admits(*name);
  };
  const auto kept = std::partition(peer.jobs.begin(), peer.jobs.end(), [&](const Queued& entry) { return !waits(entry); });
  for (auto entry = kept; entry != peer.jobs.end(); ++entry) keep_back(*peer.gated, std::move(*entry));
  peer.jobs.erase(kept, peer.jobs.end());
  std::make_heap(peer.jobs.begin(), peer.jobs.end(), Later());
}

void SendScheduler::hear(Member server, const wire::GateNews& news) {
  Peer& to = peer(server);
  if (!to.gated) to.gated = std::make_unique<Gated>();
  Gated& gated = *to.gated;
  const bool is_new = news.closing > gated.gate.closing();
  if (!gated.gate.hear(news)) return;
  // What goes back takes its old place: the heap looks at urgency and sequence, and both are as they were.
  if (news.open) {
    for (auto& [name, entry] : gated.kept_back) queue(to, std::move(entry));
    gated.kept_back.clear();
  }
  for (const wire::ChunkName& name : news.admitted) {
    const auto first = gated.kept_back.lower_bound({name.tensor, name.offset, 0});
    const auto last = gated.kept_back.upper_bound(name);
    for (auto entry = first; entry != last; ++entry) queue(to, std::move(entry->second));
    gated.kept_back.erase(first, last);
  }
  if (is_new && !news.open) keep_back_what_waits(to);
  settle(to);
  schedule_pump();
}

std::vector<KeptBack> SendScheduler::kept_back() const {
  std::vector<KeptBack> list;
  for (const auto& [member, peer] : peers_) {
    if (!peer.gated || peer.gated->kept_back.empty()) continue;
    KeptBack kept{member, peer.gated->kept_back.size(), 0, peer.gated->since};
    for (const auto& [name, entry] : peer.gated->kept_back) kept.bytes += entry.job->bytes - entry.job->done;
    list.push_back(kept);
  }
  std::sort(list.begin(), list.end(), [](const KeptBack& a, const KeptBack& b) { return a.server < b.server; });
  return list;
}

void SendScheduler::forget(Member member) {
  const auto found = peers_.find(member);
  if (found == peers_.end()) return;
  Peer& gone = found->second;
  in_flight_ -= gone.in_flight;
  if (budget_) {
    budget_->give_back(lane_, gone.slot, gone.in_flight);
    budget_->wait_for_peer(lane_, gone.slot, LinkBudget::kNothing);
    room_changed_ = true;
  }
  // Dropped only when nothing points to the peer any more: a job's `hold` may run code of its owner's.
  const std::vector<Queued> dropped = std::exchange(gone.jobs, {});
  const std::unique_ptr<Gated> dropped_too = std::move(gone.gated);
  settle(gone);
  if (index(member) < near_.size()) near_[index(member)] = nullptr;
  peers_.erase(found);
  schedule_pump();
}

bool SendScheduler::idle() const {
  return frames_unsent_ == 0 && std::all_of(peers_.begin(), peers_.end(), [](const auto& entry) {
           const Peer& peer = entry.second;
           return peer.jobs.empty() && (!peer.gated || peer.gated->kept_back.empty());
         });
}

void SendScheduler::on_receipt(Member from, std::span<const PartHeader> parts, std::uint32_t credit) {
  Peer& sender = peer(from);
  const bool was_listed = sender.credit_owed > credit_kept_max();
  for (const PartHeader& part : parts) {
    // Measuring in the middle of a job, and collective operations: not sent by a scheduler.
    if (part.type == wire::FrameType::kProbe || part.type == wire::FrameType::kMessage) continue;
    sender.credit_owed += part.bytes;
    if (index(part.tensor) < tensor_bytes_.size()) tensor_bytes_[index(part.tensor)].received += part.bytes;
  }
  // A peer cannot report more than it was sent; one that does is wrong about itself only.
  const std::size_t returned = std::min<std::size_t>(credit, sender.in_flight);
  sender.in_flight -= returned;
  in_flight_ -= returned;
  if (budget_ && returned > 0) {
    budget_->give_back(lane_, sender.slot, returned);
    room_changed_ = true;
  }
  if (returned > 0) settle(sender);
  const bool is_listed = sender.credit_owed > credit_kept_max();
  if (is_listed && !was_listed) owed_.push_back(from);
  // Another lane's scheduler may wait for the room.
  const bool nobody_waits = !budget_ && own_.empty() && full_.empty() && partial_.empty();
  if (is_listed || (returned > 0 && !nobody_waits)) schedule_pump();
}

// Once for everything that happens in this turn of the lane, so that what was queued together is ordered, and fused, together.
void SendScheduler::schedule_pump() {
  if (pump_scheduled_) return;
  pump_scheduled_ = true;
  runtime_.post([this, alive = alive_] {
    if (!*alive) return;
    pump_scheduled_ = false;
    pump();
  });
}

std::uint32_t SendScheduler::credit_kept_max() const { return peers_.size() > kManyPeers ? kCreditKeptMax : 0; }

std::size_t SendScheduler::next_piece_bytes(const Job& job) { return std::min(kPieceBytes, job.bytes - job.done); }

std::size_t SendScheduler::own_room(const Peer& peer) const {
  return budget_ ? budget_->own_room(peer.slot) : peer.own_bytes - std::min(peer.own_bytes, peer.in_flight);
}

std::size_t SendScheduler::shared_room() const {
  return budget_ ? budget_->shared_room() : window_bytes_ - std::min(window_bytes_, in_flight_);
}

bool SendScheduler::may_take_own(const Peer& peer) const {
  return !budget_ || budget_->may_take_own(lane_, peer.slot, LinkBudget::claim_of(peer.jobs.front().urgency));
}

bool SendScheduler::may_take_shared(const Urgency& urgency) const {
  return !budget_ || budget_->may_take_shared(lane_, LinkBudget::claim_of(urgency));
}

bool SendScheduler::take_room(const Peer& peer, std::size_t bytes) {
  if (!budget_) return true;
  // Where it stands may be old news: of before another lane began to wait.
  const bool taken = peer.standing == Standing::kOwn ? may_take_own(peer) && budget_->take_own(lane_, peer.slot, bytes)
                                                     : budget_->take_shared(lane_, peer.slot, bytes);
  room_changed_ |= taken;
  return taken;
}

SendScheduler::Order* SendScheduler::order_of(Standing standing) {
  switch (standing) {
    case Standing::kOwn:
      return &own_;
    case Standing::kFull:
      return &full_;
    case Standing::kPartial:
      return &partial_;
    case Standing::kIdle:
      break;
  }
  return nullptr;
}

void SendScheduler::settle(Peer& peer) {
  if (budget_ && !peer.unsettled) {
    peer.unsettled = true;
    unsettled_.push_back(peer.member);
  }
  place(peer);
}

void SendScheduler::place_all() {
  for (auto& [member, peer] : peers_) place(peer);
}

void SendScheduler::place(Peer& peer) {
  Standing standing = Standing::kIdle;
  Turn turn;
  if (!peer.jobs.empty()) {
    const std::size_t next = next_piece_bytes(peer);
    standing = next <= own_room(peer) && may_take_own(peer) ? Standing::kOwn : next == kPieceBytes ? Standing::kFull : Standing::kPartial;
    turn = {peer.jobs.front().urgency, peer.served, index(peer.member)};
  }
  if (standing == peer.standing) {
    if (Order* const order = order_of(standing)) order->move(&peer, turn);
    return;
  }
  if (Order* const order = order_of(peer.standing)) order->remove(&peer);
  peer.standing = standing;
  if (Order* const order = order_of(standing)) order->insert(&peer, turn);
}

SendScheduler::Peer* SendScheduler::most_urgent() const {
  std::pair<Turn, Peer*> best{{}, nullptr};
  const auto consider = [&](const Turn& turn, Peer* candidate) {
    if (best.second == nullptr || turn < best.first) best = {turn, candidate};
  };
  const auto consider_shared = [&](const Turn& turn, Peer* candidate) {
    if (may_take_shared(turn.urgency)) consider(turn, candidate);
  };
  if (!own_.empty()) consider(own_.first_turn(), own_.first());
  const std::size_t room = shared_room();
  if (room >= kPieceBytes) {
    if (!full_.empty()) consider_shared(full_.first_turn(), full_.first());
    if (!partial_.empty()) consider_shared(partial_.first_turn(), partial_.first());
  } else if (room > 0) {
    // A look at all is cheap: each of these has more in flight than two pieces less its next, and all of them together less than
    // the window, as there is room. So there are few.
    const auto [turn, candidate] = partial_.first_that([room](const Peer& peer) { return next_piece_bytes(peer) <= room; });
    if (candidate != nullptr) consider_shared(turn, candidate);
  }
  return best.second;
}

bool SendScheduler::serve() {
  bool sent = false;
  while (Peer* const next = most_urgent()) sent |= send_frame(*next);
  return sent;
}

void SendScheduler::pump() {
  serve();
  if (budget_) share();
  return_credit();
}

void SendScheduler::share() {
  std::vector<std::size_t> slots;
  do {
    // First all is said, then looked at once more: whoever gives room back either finds it said, or is seen here.
    for (const Member member : std::exchange(unsettled_, {})) {
      const auto found = peers_.find(member);
      if (found == peers_.end()) continue;
      Peer& peer = found->second;
      peer.unsettled = false;
      slots.push_back(peer.slot);
      const bool waits = !peer.jobs.empty();
      room_changed_ |= budget_->wait_for_peer(lane_, peer.slot,
                                              waits ? LinkBudget::claim_of(peer.jobs.front().urgency) : LinkBudget::kNothing);
      place(peer);
    }
    LinkBudget::Claim most_urgent = LinkBudget::kNothing;
    for (const Order* const order : {&full_, &partial_}) {
      if (!order->empty()) most_urgent = std::min(most_urgent, LinkBudget::claim_of(order->first_turn().urgency));
    }
    room_changed_ |= budget_->wait_for_window(lane_, most_urgent);
    if (budget_->has_yielded(lane_)) place_all();
  } while (serve());
  if (std::exchange(room_changed_, false)) budget_->wake_others(lane_, slots);
}

void SendScheduler::look_again() {
  place_all();
  pump();
}

void SendScheduler::take_piece(Peer& peer, Frame& frame, std::vector<std::shared_ptr<Job>>& jobs) {
  Job& job = *peer.jobs.front().job;
  // What a `hold` keeps alive need not be what it points to: it may well point to nothing.
  if (job.request.hold.use_count() > 0 || job.request.on_sent) jobs.push_back(peer.jobs.front().job);
  PartHeader part = job.request.part;
  const std::size_t bytes = next_piece_bytes(job);
  part.offset = job.request.begin + job.done;
  part.bytes = static_cast<std::uint32_t>(bytes);
  job.request.source.slices(job.done, job.done + bytes, frame.payload);
  frame.parts.push_back(part);
  if (index(part.tensor) < tensor_bytes_.size()) {
    tensor_bytes_[index(part.tensor)].sent += bytes;
    const bool is_gradient = part.type == wire::FrameType::kPush || part.type == wire::FrameType::kFactor;
    if (events_ != nullptr && is_gradient && first_byte_seen_[index(part.tensor)] <= part.iteration) {
      first_byte_seen_[index(part.tensor)] = part.iteration + 1;
      events_->record({base::EventKind::kFirstByte, runtime_.now(), part.iteration, index(part.tensor), bytes, {}});
    }
  }
  job.done += bytes;
  if (job.done < job.bytes) return;
  std::pop_heap(peer.jobs.begin(), peer.jobs.end(), Later());
  peer.jobs.pop_back();
}

bool SendScheduler::send_frame(Peer& peer) {
  Frame frame;
  std::vector<std::shared_ptr<Job>> jobs;
  std::size_t total = next_piece_bytes(peer);
  const bool is_small = total <= kSmallPartBytes;
  const std::size_t room = std::min(kPieceBytes, std::max(own_room(peer), shared_room()));
  if (!take_room(peer, total)) {
    settle(peer);
    return false;
  }
  take_piece(peer, frame, jobs);
  while (is_small && !peer.jobs.empty() && frame.parts.size() < wire::kPartsMax) {
    const std::size_t bytes = next_piece_bytes(peer);
    if (bytes > kSmallPartBytes || total + bytes > room || !take_room(peer, bytes)) break;
    total += bytes;
    take_piece(peer, frame, jobs);
  }
  frame.credit = std::exchange(peer.credit_owed, 0);
  peer.in_flight += total;
  peer.served = next_turn_++;
  in_flight_ += total;
  in_flight_max_ = std::max(in_flight_max_, in_flight_);
  settle(peer);
  // Sending may find the link broken, and then the peer is forgotten: nothing touches it after this.
  const Member to = peer.member;
  if (jobs.empty()) {
    transport_.send({to, runtime::Lane{0}}, std::move(frame), nullptr);
    return true;
  }
  ++frames_unsent_;
  transport_.send({to, runtime::Lane{0}}, std::move(frame), [this, alive = alive_, jobs = std::move(jobs)] {
    for (const auto& job : jobs) {
      if (--job->pieces_left > 0) continue;
      job->request.hold.reset();
      if (const runtime::SentFn on_sent = std::move(job->request.on_sent)) on_sent();
    }
    if (*alive) --frames_unsent_;
  });
  return true;
}

// To peers to whom nothing is going anyway, in the order of their numbers.
void SendScheduler::return_credit() {
  std::vector<Member> owed = std::exchange(owed_, {});
  std::sort(owed.begin(), owed.end());
  for (const Member member : owed) {
    Peer* const found = find_peer(member);
    if (found == nullptr || found->credit_owed == 0) continue;
    Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kCredit});
    frame.credit = std::exchange(found->credit_owed, 0);
    // Sending may find the link broken, and then peers_ changes.
    transport_.send({member, runtime::Lane{0}}, std::move(frame), nullptr);
  }
}

}  // namespace poseidon::session
