#include "session/send_scheduler.h"

#include <algorithm>

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

void SendScheduler::enqueue(SendRequest request) {
  const std::size_t bytes = request.source.bytes();
  Job job{std::move(request), bytes, 0, std::make_shared<Completion>()};
  job.completion->pieces_left = std::max<std::size_t>(1, (bytes + kPieceBytes - 1) / kPieceBytes);
  job.completion->hold = std::move(job.request.hold);
  job.completion->on_sent = std::move(job.request.on_sent);
  const Member to = job.request.to;
  peers_[to].jobs.emplace(Key{job.request.priority, next_sequence_++}, std::move(job));
  schedule_pump();
}

void SendScheduler::forget(Member peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  in_flight_ -= found->second.in_flight;
  peers_.erase(found);
  schedule_pump();
}

bool SendScheduler::idle() const {
  return std::all_of(peers_.begin(), peers_.end(),
                     [](const auto& entry) { return entry.second.jobs.empty() && entry.second.frames_unsent == 0; });
}

void SendScheduler::on_receipt(Member from, std::span<const PartHeader> parts, std::uint32_t credit) {
  Peer& peer = peers_[from];
  for (const PartHeader& part : parts) {
    peer.credit_owed += part.bytes;
    if (index(part.tensor) < tensor_bytes_.size()) tensor_bytes_[index(part.tensor)].received += part.bytes;
  }
  // A peer cannot report more than it was sent; one that does is wrong about itself only.
  const std::size_t returned = std::min<std::size_t>(credit, peer.in_flight);
  peer.in_flight -= returned;
  in_flight_ -= returned;
  if (returned > 0 || peer.credit_owed > 0) schedule_pump();
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

std::size_t SendScheduler::next_piece_bytes(const Job& job) { return std::min(kPieceBytes, job.bytes - job.done); }

std::size_t SendScheduler::allowance(const Peer& peer) const {
  const std::size_t own = kPeerWindowBytes - std::min(kPeerWindowBytes, peer.in_flight);
  const std::size_t shared = window_bytes_ - std::min(window_bytes_, in_flight_);
  return std::max(own, shared);
}

SendScheduler::Peer* SendScheduler::most_urgent(Member& who) {
  Peer* best = nullptr;
  for (auto& [member, peer] : peers_) {
    if (peer.jobs.empty() || next_piece_bytes(peer.jobs.begin()->second) > allowance(peer)) continue;
    if (best != nullptr) {
      const runtime::Priority& a = peer.jobs.begin()->first.priority;
      const runtime::Priority& b = best->jobs.begin()->first.priority;
      const bool is_better = a != b ? a < b : peer.served < best->served;
      if (!is_better) continue;
    }
    best = &peer;
    who = member;
  }
  return best;
}

void SendScheduler::pump() {
  Member to{0};
  while (Peer* const peer = most_urgent(to)) send_frame(to, *peer);
  return_credit();
}

void SendScheduler::take_piece(Peer& peer, Frame& frame, std::vector<std::shared_ptr<Completion>>& completions) {
  const auto first = peer.jobs.begin();
  Job& job = first->second;
  PartHeader part = job.request.part;
  const std::size_t bytes = next_piece_bytes(job);
  part.offset = job.request.begin + job.done;
  part.bytes = static_cast<std::uint32_t>(bytes);
  job.request.source.slices(job.done, job.done + bytes, frame.payload);
  frame.parts.push_back(part);
  completions.push_back(job.completion);
  if (index(part.tensor) < tensor_bytes_.size()) {
    tensor_bytes_[index(part.tensor)].sent += bytes;
    const bool is_gradient = part.type == wire::FrameType::kPush || part.type == wire::FrameType::kFactor;
    if (events_ != nullptr && is_gradient && first_byte_seen_[index(part.tensor)] <= part.iteration) {
      first_byte_seen_[index(part.tensor)] = part.iteration + 1;
      events_->record({base::EventKind::kFirstByte, runtime_.now(), part.iteration, index(part.tensor), bytes, {}});
    }
  }
  job.done += bytes;
  if (job.done == job.bytes) peer.jobs.erase(first);
}

void SendScheduler::send_frame(Member to, Peer& peer) {
  Frame frame;
  std::vector<std::shared_ptr<Completion>> completions;
  std::size_t total = next_piece_bytes(peer.jobs.begin()->second);
  const bool is_small = total <= kSmallPartBytes;
  const std::size_t room = std::min(kPieceBytes, allowance(peer));
  take_piece(peer, frame, completions);
  while (is_small && !peer.jobs.empty() && frame.parts.size() < wire::kPartsMax) {
    const std::size_t bytes = next_piece_bytes(peer.jobs.begin()->second);
    if (bytes > kSmallPartBytes || total + bytes > room) break;
    total += bytes;
    take_piece(peer, frame, completions);
  }
  frame.credit = std::exchange(peer.credit_owed, 0);
  peer.in_flight += total;
  peer.served = next_turn_++;
  ++peer.frames_unsent;
  in_flight_ += total;
  in_flight_max_ = std::max(in_flight_max_, in_flight_);
  transport_.send({to, runtime::Lane{0}}, std::move(frame), [this, alive = alive_, to, completions = std::move(completions)] {
    for (const auto& completion : completions) {
      if (--completion->pieces_left > 0) continue;
      completion->hold.reset();
      if (const runtime::SentFn on_sent = std::move(completion->on_sent)) on_sent();
    }
    if (!*alive) return;
    if (const auto found = peers_.find(to); found != peers_.end()) --found->second.frames_unsent;
  });
}

// To peers to whom nothing is going anyway.
void SendScheduler::return_credit() {
  std::vector<std::pair<Member, std::uint32_t>> owed;
  for (auto& [member, peer] : peers_) {
    if (peer.credit_owed > 0) owed.emplace_back(member, std::exchange(peer.credit_owed, 0));
  }
  // Sending may find the link broken, and then peers_ changes.
  for (const auto& [member, credit] : owed) {
    Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kCredit});
    frame.credit = credit;
    transport_.send({member, runtime::Lane{0}}, std::move(frame), nullptr);
  }
}

}  // namespace poseidon::session
