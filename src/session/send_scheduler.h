// Decides what leaves this member next, over everything it has to send to anybody.
//
// One scheduler for pushes, sums and factors together: the most urgent piece goes first (runtime::Priority: the layer nearest
// the input first, since the next forward pass wants it first), and among equally urgent ones the peer that was served
// longest ago. A request is cut into pieces of 64 KiB when they leave, so a more urgent one overtakes within a piece.
// Priority scheduling and partition: Jayarajan et al. (P3), MLSys 2019; Peng et al. (ByteScheduler), SOSP 2019.
//
// What has been handed to the kernel cannot be overtaken any more. Credits bound it: each received byte of payload is
// reported back to its sender, and a sender has at most `window_bytes` unreported over all peers. Beyond that each peer may
// still have a window of its own (session/peer_windows.h), so that one which has stopped reading does not hold up the others. Credit comes back on receipt, not
// on use, so no credit waits for another member's progress. Among more than 64 peers up to a piece of it waits for a frame to go along
// with.
//
// A server whose staging memory is short takes pushes of certain chunks only (store/gate.h). The others wait aside, out of the
// order, until it asks for them or opens its gate; nothing else ever waits for a gate.
//
// Small parts for one peer share a frame. The cost of a frame grows with the logarithm of the number of peers. Lane only; the
// schedulers of a member's several lanes meet in a LinkBudget.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/event.h"
#include "runtime/outbox.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"
#include "session/engine.h"
#include "session/link_budget.h"
#include "session/peer_gate.h"
#include "session/peer_order.h"
#include "session/peer_windows.h"

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
  PeerWindows own_windows;                      // what each peer may have besides; with a budget that has them
  base::EventListener* events = nullptr;        // may be null
  // Where the member has several lanes, each with a scheduler: what they share, and which one this is. It then has the window.
  std::shared_ptr<LinkBudget> budget;
  std::size_t lane = 0;
};

// Pushes that a server keeps waiting.
struct KeptBack {
  Member server{0};
  std::size_t pushes = 0;
  std::size_t bytes = 0;
  runtime::Time since{};  // without a pause
};

class SendScheduler : public runtime::Outbox {
 public:
  // Takes the transport's receipts. Both outlive the scheduler.
  SendScheduler(runtime::Runtime& runtime, runtime::Transport& transport, SendSchedulerOptions options);
  ~SendScheduler() override;

  void enqueue(runtime::SendRequest request) override;
  void set_window(std::size_t bytes) { window_bytes_ = bytes; }
  // What a server says of its gate.
  void hear(Member server, const wire::GateNews& news);
  // By server, in the order of their numbers.
  std::vector<KeptBack> kept_back() const;
  // Drops what waits for a member that is gone.
  void forget(Member peer);

  const std::vector<TensorBytes>& tensor_bytes() const { return tensor_bytes_; }
  std::size_t bytes_in_flight() const { return in_flight_; }
  std::size_t bytes_in_flight_max() const { return in_flight_max_; }
  // Nothing queued or kept back, and nobody waits to hear that something has left.
  bool idle() const;

 private:
  // A request, shared by the queue and by the frames that carry its pieces.
  struct Job {
    runtime::SendRequest request;  // its `hold` and `on_sent` are used up when the last piece has left
    std::size_t bytes = 0;
    std::size_t done = 0;          // taken into frames
    std::size_t pieces_left = 0;   // that have not left
  };
  struct Queued {
    Urgency urgency;
    std::uint64_t sequence = 0;
    std::shared_ptr<Job> job;
  };
  // For the heap functions of the standard library, which put the largest first.
  struct Later {
    bool operator()(const Queued& a, const Queued& b) const {
      return a.urgency != b.urgency ? b.urgency < a.urgency : b.sequence < a.sequence;
    }
  };
  // A server that has ever closed its gate.
  struct Gated {
    PeerGate gate;
    std::multimap<wire::ChunkName, Queued> kept_back;  // in no order of sending: they go back to it when they may leave
    runtime::Time since{};                             // when the first of these came aside
  };
  // Where a peer that has something to get stands, by what allows its next piece.
  enum class Standing : std::uint8_t {
    kIdle,     // nothing is queued
    kOwn,      // its own piece: it may be served whatever the others have in flight
    kFull,     // room for a whole piece in the window
    kPartial,  // room in the window for the smaller piece that is next
  };
  struct Peer {
    Member member{0};
    std::vector<Queued> jobs;         // a heap
    std::unique_ptr<Gated> gated;     // null where no gate was ever closed
    std::size_t own_bytes = 0;        // its own window
    std::size_t in_flight = 0;        // payload bytes without credit yet
    std::uint32_t credit_owed = 0;    // payload bytes received, not yet reported
    std::uint64_t served = 0;         // when this peer got its last frame
    Standing standing = Standing::kIdle;
    std::size_t place = 0;            // in the order of its standing
    std::size_t slot = 0;             // in the budget, where there is one
    bool unsettled = false;           // is in unsettled_
  };
  using Order = PeerOrder<Peer>;

  void on_receipt(Member from, std::span<const wire::PartHeader> parts, std::uint32_t credit);
  void schedule_pump();
  void pump();
  // Sends whatever may be sent. True when something was.
  bool serve();
  // Tells the other lanes what this one waits with, and wakes those for whom there is room.
  void share();
  // Another lane has given room back, or something more urgent of its has gone.
  void look_again();
  // Made on first use.
  Peer& peer(Member member);
  // Null for one that is not known.
  Peer* find_peer(Member member);
  // Null when nobody may be served.
  Peer* most_urgent() const;
  // How many bytes may go to the peer now: `own_room` for its own sake, `shared_room` to anybody.
  std::size_t own_room(const Peer& peer) const;
  std::size_t shared_room() const;
  // Of a push with a payload, which a gate may keep back.
  static std::optional<wire::ChunkName> gated_name(const Job& job);
  static void queue(Peer& peer, Queued entry);
  void keep_back(Gated& gated, Queued entry);
  // After a gate has closed: what it does not admit leaves the queue.
  void keep_back_what_waits(Peer& peer);
  // Does no other lane wait with something more urgent, for the peer or for the window?
  bool may_take_own(const Peer& peer) const;
  bool may_take_shared(const Urgency& urgency) const;
  // Room for the next so many bytes, by what the peer's standing stands on. Always there with one lane.
  bool take_room(const Peer& peer, std::size_t bytes);
  // Puts the peer where it belongs, after its queue or its bytes in flight have changed.
  void settle(Peer& peer);
  // Likewise, after only the other lanes' have.
  void place(Peer& peer);
  void place_all();
  Order* order_of(Standing standing);
  // False when another lane took the room first.
  bool send_frame(Peer& peer);
  // How much credit may stay owed to a peer to whom nothing is going.
  std::uint32_t credit_kept_max() const;
  // Moves the next piece of the peer's first job into the frame; into `jobs` the job, where somebody wants to know when it has left.
  void take_piece(Peer& peer, runtime::Frame& frame, std::vector<std::shared_ptr<Job>>& jobs);
  void return_credit();
  static std::size_t next_piece_bytes(const Job& job);
  static std::size_t next_piece_bytes(const Peer& peer) { return next_piece_bytes(*peer.jobs.front().job); }

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  base::EventListener* events_;
  std::size_t window_bytes_;
  const PeerWindows own_windows_;
  const std::shared_ptr<LinkBudget> budget_;  // null with one lane
  const std::size_t lane_;
  std::unordered_map<Member, Peer> peers_;
  // The same by number, as far as numbers are small, which they are: the way of every frame passes here twice.
  std::vector<Peer*> near_;
  std::size_t frames_unsent_ = 0;  // handed to the transport and not gone, of those of which somebody wants to know
  // All peers for whom something is queued, each in the order of its standing.
  Order own_;
  Order full_;
  Order partial_;
  std::vector<Member> owed_;  // whose credit_owed has come to more than may be kept since the last return_credit(); some may occur twice
  // Only with a budget: whose queue or bytes in flight have changed since the last share(), and whether room was taken or given
  // back since then.
  std::vector<Member> unsettled_;
  bool room_changed_ = false;
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
