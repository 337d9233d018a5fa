#include "cluster/link_probe.h"

#include <algorithm>
#include <chrono>

namespace poseidon::cluster {
namespace {

using runtime::Layout;
using runtime::Region;
using wire::FrameType;
using wire::PartHeader;

constexpr int kPings = 8;
constexpr std::size_t kFirstBurstBytes = 256 * 1024;
// 64 MiB take half a second at 1 Gbit/s; a slower link is known well enough long before.
constexpr std::size_t kBurstBytesMax = 64 << 20;
// Long enough that neither the latency nor one late wake-up weighs much.
constexpr double kTrustedSeconds = 10e-3;

double seconds(runtime::Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

LinkProbe::LinkProbe(runtime::Runtime& runtime, runtime::Transport& transport)
    : runtime_(runtime), transport_(transport), out_(wire::kPieceBytes), in_(wire::kPieceBytes) {
  transport_.set_acceptor(FrameType::kProbe, [this, alive = alive_](Member, const PartHeader& part) -> Result<runtime::Sink> {
    if (!*alive) return Error{ErrorCode::kAborted, "the probe is closed"};
    // Everybody's bytes land on one another: nobody reads them.
    const Layout layout = Layout::contiguous({in_.data(), in_.size(), {}, 0}, 0, part.bytes);
    return runtime::Sink{part.offset, part.offset + part.bytes, layout, [this, alive](Member from, const PartHeader& arrived) {
                           if (*alive) on_probe(from, arrived);
                         }};
  });
}

LinkProbe::~LinkProbe() { *alive_ = false; }

void LinkProbe::measure(Member peer, std::function<void(const LinkSpeed&)> done) {
  peer_ = peer;
  done_ = std::move(done);
  pings_left_ = kPings;
  burst_bytes_ = kFirstBurstBytes;
  round_trip_seconds_ = 1e9;
  best_ = {};
  ping();
}

void LinkProbe::send(Member to, std::uint64_t sequence, std::size_t bytes, std::uint16_t flags) {
  runtime::Frame frame;
  frame.parts.push_back({.type = FrameType::kProbe, .flags = flags, .iteration = sequence, .bytes = static_cast<std::uint32_t>(bytes)});
  if (bytes > 0) frame.payload.push_back({Region{out_.data(), out_.size(), {}, 0}, 0, bytes});
  // The buffer lives as long as the probe, which outlives the measurement.
  transport_.send({to, runtime::Lane{0}}, std::move(frame), nullptr);
}

void LinkProbe::ping() {
  sent_at_ = runtime_.now();
  send(peer_, ++sequence_, 0, wire::kEcho);
}

void LinkProbe::burst() {
  sent_at_ = runtime_.now();
  ++sequence_;
  for (std::size_t left = burst_bytes_; left > 0; left -= wire::kPieceBytes) {
    send(peer_, sequence_, wire::kPieceBytes, left == wire::kPieceBytes ? wire::kEcho : 0);
  }
}

void LinkProbe::on_probe(Member from, const PartHeader& part) {
  if ((part.flags & wire::kEcho) != 0) return send(from, part.iteration, 0, 0);
  const bool is_answer = part.bytes == 0 && done_ && from == peer_ && part.iteration == sequence_;
  if (!is_answer) return;
  const double took = seconds(runtime_.now() - sent_at_);
  if (pings_left_ > 0) {
    round_trip_seconds_ = std::min(round_trip_seconds_, took);
    if (--pings_left_ > 0) return ping();
    best_.latency_seconds = std::max(round_trip_seconds_ / 2, 1e-9);
    return burst();
  }
  // The answer to the last byte comes a round trip after it has left; noise must not make a link look infinitely fast.
  const double transfer = std::max(took - round_trip_seconds_, took / 4);
  best_.bytes_per_second = std::max(best_.bytes_per_second, static_cast<double>(burst_bytes_) / transfer);
  if (transfer >= kTrustedSeconds || burst_bytes_ >= kBurstBytesMax) return std::exchange(done_, nullptr)(best_);
  burst_bytes_ *= 2;
  burst();
}

}  // namespace poseidon::cluster
