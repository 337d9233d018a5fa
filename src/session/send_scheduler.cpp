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
// What each peer may have in flight whatever the others have: a piece that arrives while the next is on its way. With one alone
// the link to a peer stands still until its credit is back (docs/decisions/0014-two-pieces-for-each-peer.md).
constexpr std::size_t kPeerWindowBytes = 2 * kPieceBytes;
// With more peers than this, what each may have in flight for itself is more in all than any window, so that the window decides
// nothing, and credit may wait until it goes along with another frame: at most a piece of it, so that the peer's next piece may always
// leave (docs/decisions/0018-a-thousand-nodes.md).
constexpr std::size_t kManyPeers = 64;
// Members below this number are found in an array: half a megabyte at the most.
constexpr std::uint32_t kNearMax = 1 << 16;
constexpr std::size_t kCreditKeptMax = kPeerWindowBytes - kPieceBytes;

}  // namespace

std::size_t window_bytes_for(const WindowQuestion& link) {
  const double bytes = link.link_bytes_per_second * std::max(300e-6 * link.dilation, 4 * link.latency_seconds);
  return static_cast<std::size_t>(std::clamp(bytes, 4.0 * kPieceBytes, 64.0 * (1 << 20)));
}

SendScheduler::SendScheduler(runtime::Runtime& runtime, runtime::Transport& transport, SendSchedulerOptions options)
    : runtime_(runtime), transport_(transport), events_(options.events), window_bytes_(options.window_bytes),
      tensor_bytes_(options.tensors), first_byte_seen_(options.tensors, 0) {
  transport_.set_receipt_handler([this, alive = alive_](Member from, std::span<const PartHeader> parts, std::uint32_t credit) {
    if (*alive) on_receipt(from, parts, credit);
  });
}

SendScheduler::~SendScheduler() { *alive_ = false; }

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
  to.jobs.push_back({urgency, next_sequence_++, std::move(job)});
  std::push_heap(to.jobs.begin(), to.jobs.end(), Later());
  settle(to);
  schedule_pump();
}

void SendScheduler::forget(Member member) {
  const auto found = peers_.find(member);
  if (found == peers_.end()) return;
  Peer& gone = found->second;
  in_flight_ -= gone.in_flight;
  // Dropped only when nothing points to the peer any more: a job's `hold` may run code of its owner's.
  const std::vector<Queued> dropped = std::exchange(gone.jobs, {});
  settle(gone);
  if (index(member) < near_.size()) near_[index(member)] = nullptr;
  peers_.erase(found);
  schedule_pump();
}

bool SendScheduler::idle() const {
  return frames_unsent_ == 0 &&
         std::all_of(peers_.begin(), peers_.end(), [](const auto& entry) { return entry.second.jobs.empty(); });
}

void SendScheduler::on_receipt(Member from, std::span<const PartHeader> parts, std::uint32_t credit) {
  Peer& sender = peer(from);
  const bool was_listed = sender.credit_owed > credit_kept_max();
  for (const PartHeader& part : parts) {
    sender.credit_owed += part.bytes;
    if (index(part.tensor) < tensor_bytes_.size()) tensor_bytes_[index(part.tensor)].received += part.bytes;
  }
  // A peer cannot report more than it was sent; one that does is wrong about itself only.
  const std::size_t returned = std::min<std::size_t>(credit, sender.in_flight);
  sender.in_flight -= returned;
  in_flight_ -= returned;
  if (returned > 0) settle(sender);
  const bool is_listed = sender.credit_owed > credit_kept_max();
  if (is_listed && !was_listed) owed_.push_back(from);
  const bool nobody_waits = own_.empty() && full_.empty() && partial_.empty();
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

std::size_t SendScheduler::own_room(const Peer& peer) { return kPeerWindowBytes - std::min(kPeerWindowBytes, peer.in_flight); }
std::size_t SendScheduler::shared_room() const { return window_bytes_ - std::min(window_bytes_, in_flight_); }

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
  Standing standing = Standing::kIdle;
  Turn turn;
  if (!peer.jobs.empty()) {
    const std::size_t next = next_piece_bytes(peer);
    standing = next <= own_room(peer) ? Standing::kOwn : next == kPieceBytes ? Standing::kFull : Standing::kPartial;
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
  if (!own_.empty()) consider(own_.first_turn(), own_.first());
  const std::size_t room = shared_room();
  if (room >= kPieceBytes) {
    if (!full_.empty()) consider(full_.first_turn(), full_.first());
    if (!partial_.empty()) consider(partial_.first_turn(), partial_.first());
  } else if (room > 0) {
    // A look at all is cheap: each of these has more in flight than two pieces less its next, and all of them together less than
    // the window, as there is room. So there are few.
    const auto [turn, candidate] = partial_.first_that([room](const Peer& peer) { return next_piece_bytes(peer) <= room; });
    if (candidate != nullptr) consider(turn, candidate);
  }
  return best.second;
}

void SendScheduler::pump() {
  while (Peer* const next = most_urgent()) send_frame(*next);
  return_credit();
}

void SendScheduler::take_piece(Peer& peer, Frame& frame, std::vector<std::shared_ptr<Job>>& jobs) {
  Job& job = *peer.jobs.front().job;
  if (job.request.hold || job.request.on_sent) jobs.push_back(peer.jobs.front().job);
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

void SendScheduler::send_frame(Peer& peer) {
  Frame frame;
  std::vector<std::shared_ptr<Job>> jobs;
  std::size_t total = next_piece_bytes(peer);
  const bool is_small = total <= kSmallPartBytes;
  const std::size_t room = std::min(kPieceBytes, std::max(own_room(peer), shared_room()));
  take_piece(peer, frame, jobs);
  while (is_small && !peer.jobs.empty() && frame.parts.size() < wire::kPartsMax) {
    const std::size_t bytes = next_piece_bytes(peer);
    if (bytes > kSmallPartBytes || total + bytes > room) break;
    total += bytes;
    take_piece(peer, frame, jobs);
  }
  frame.credit = std::exchange(peer.credit_owed, 0);
  peer.in_flight += total;
  peer.served = next_turn_++;
  ++frames_unsent_;
  in_flight_ += total;
  in_flight_max_ = std::max(in_flight_max_, in_flight_);
  settle(peer);
  // Sending may find the link broken, and then the peer is forgotten: nothing touches it after this.
  const Member to = peer.member;
  transport_.send({to, runtime::Lane{0}}, std::move(frame), [this, alive = alive_, jobs = std::move(jobs)] {
    for (const auto& job : jobs) {
      if (--job->pieces_left > 0) continue;
      job->request.hold.reset();
      if (const runtime::SentFn on_sent = std::move(job->request.on_sent)) on_sent();
    }
    if (*alive) --frames_unsent_;
  });
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
