// Decides what leaves this member next, over everything it has to send to anybody.
//
// One scheduler for pushes, sums and factors together: the most urgent piece goes first (runtime::Priority: the layer nearest
// the input first, since the next forward pass wants it first), and among equally urgent ones the peer that was served
// longest ago. A request is cut into pieces of 64 KiB when they leave, so a more urgent one overtakes within a piece.
// Priority scheduling and partition: Jayarajan et al. (P3), MLSys 2019; Peng et al. (ByteScheduler), SOSP 2019.
//
// What has been handed to the kernel cannot be overtaken any more. Credits bound it: each received byte of payload is
// reported back to its sender, and a sender has at most `window_bytes` unreported over all peers. Beyond that each peer may
// still have two pieces, so that one which has stopped reading does not hold up the others. Credit comes back on receipt, not
// on use, so no credit waits for another member's progress.
//
// Small parts for one peer share a frame. Lane only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/event.h"
#include "runtime/outbox.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"

namespace poseidon::session {

// How many bytes to keep in flight over all peers on a link: what the round trip takes, or 300 µs of the link (times the dilation,
// in a run in which all takes that much longer), since bytes in the kernel cannot be overtaken; but room for four pieces.
// With fewer a link stands still between a piece's arrival and the return of its credit, which waits behind the piece that the
// other side is sending.
struct WindowQuestion {
  double link_bytes_per_second = 1.25e9;
  double latency_seconds = 50e-6;  // one way
  double dilation = 1;
};
std::size_t window_bytes_for(const WindowQuestion& link);

struct SendSchedulerOptions {
  // 300 µs of a 25 Gbit/s link; a slower link is given less once its rate is known (set_window).
  std::size_t window_bytes = 1 << 20;
  std::size_t tensors = 0;                      // how many to count for
  base::EventListener* events = nullptr;        // may be null
};

// Payload bytes of one tensor's messages, since the start.
struct TensorBytes {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

class SendScheduler : public runtime::Outbox {
 public:
  // Takes the transport's receipts. Both outlive the scheduler.
  SendScheduler(runtime::Runtime& runtime, runtime::Transport& transport, SendSchedulerOptions options);
  ~SendScheduler() override;

  void enqueue(runtime::SendRequest request) override;
  void set_window(std::size_t bytes) { window_bytes_ = bytes; }
  // Drops what waits for a member that is gone.
  void forget(Member peer);

  const std::vector<TensorBytes>& tensor_bytes() const { return tensor_bytes_; }
  std::size_t bytes_in_flight() const { return in_flight_; }
  std::size_t bytes_in_flight_max() const { return in_flight_max_; }
  // Nothing queued and nothing handed to the transport that has not left.
  bool idle() const;

 private:
  // Shared by the frames that carry a request's pieces.
  struct Completion {
    std::size_t pieces_left = 0;
    std::shared_ptr<void> hold;
    runtime::SentFn on_sent;
  };
  struct Job {
    runtime::SendRequest request;
    std::size_t bytes = 0;
    std::size_t done = 0;
    std::shared_ptr<Completion> completion;
  };
  struct Key {
    runtime::Priority priority;
    std::uint64_t sequence = 0;
    friend bool operator<(const Key& a, const Key& b) {
      return a.priority != b.priority ? a.priority < b.priority : a.sequence < b.sequence;
    }
  };
  struct Peer {
    std::map<Key, Job> jobs;
    std::size_t in_flight = 0;        // payload bytes without credit yet
    std::size_t frames_unsent = 0;    // handed to the transport, borrowed memory not free yet
    std::uint32_t credit_owed = 0;    // payload bytes received, not yet reported
    std::uint64_t served = 0;         // when this peer got its last frame
  };

  void on_receipt(Member from, std::span<const wire::PartHeader> parts, std::uint32_t credit);
  void schedule_pump();
  void pump();
  Peer* most_urgent(Member& who);
  // How many bytes may go to the peer now.
  std::size_t allowance(const Peer& peer) const;
  void send_frame(Member to, Peer& peer);
  // Moves the next piece of the peer's first job into the frame.
  void take_piece(Peer& peer, runtime::Frame& frame, std::vector<std::shared_ptr<Completion>>& completions);
  void return_credit();
  static std::size_t next_piece_bytes(const Job& job);

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  base::EventListener* events_;
  std::size_t window_bytes_;
  std::map<Member, Peer> peers_;
  std::uint64_t next_sequence_ = 0;
  std::uint64_t next_turn_ = 1;
  std::size_t in_flight_ = 0;
  std::size_t in_flight_max_ = 0;
  bool pump_scheduled_ = false;
  std::vector<TensorBytes> tensor_bytes_;
  std::vector<Iteration> first_byte_seen_;  // by tensor: the iteration after the last whose first byte was reported
  // Tasks on the lane and callbacks of the transport may outlive this; they look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::session
