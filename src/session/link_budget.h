// What the lanes of one member share: the bytes that it may have in flight on its link, and who of them goes first.
//
// Each lane has a send scheduler of its own; this keeps their bytes in flight, together, within what one lane would be allowed
// (SendSchedulerOptions::window_bytes over all peers, and each peer's own window besides), and their order that of one lane: a
// lane that finds no room says what it waits with, and no other takes room for something less urgent until that has gone. Among
// equals the lane with fewer bytes in flight goes first, so that a tensor that lies on several lanes moves on all of them.
//
// Nothing here locks or waits. All is atomic, and sequentially consistent: a lane first says what it waits with and then looks for
// room, another first gives room back and then looks who waits, so one of the two sees the other. A lane that is to look again
// gets a task posted.
//
// Any lane, where nothing else is said. With one lane there is none of this (docs/decisions/0019-several-lanes.md).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "poseidon/types.h"
#include "runtime/runtime.h"
#include "session/peer_order.h"
#include "session/peer_windows.h"
#include "wire/frame.h"

namespace poseidon::session {

class LinkBudget {
 public:
  // `peers`: all members that are ever sent to, with their `own` room. `lanes`: the runtime of each; they outlive the budget.
  LinkBudget(std::size_t window_bytes, const std::vector<Member>& peers, const std::vector<runtime::Runtime*>& lanes,
             const PeerWindows& own = {});

  // An urgency in one word; smaller goes first.
  using Claim = std::uint64_t;
  static constexpr Claim kNothing = ~Claim{0};
  static Claim claim_of(const Urgency& urgency);

  // The peer's index for the functions below. Those that are heard but never sent to (the coordinator, other workers of this host)
  // have one in common, of which nothing is ever in flight.
  std::size_t slot_of(Member peer) const;

  // On the lane: what to run there when it should look again; null: nothing any more.
  void on_wake(std::size_t lane, runtime::Task look_again) { lanes_[lane]->look_again = std::move(look_again); }

  std::size_t own_room(std::size_t slot) const;
  std::size_t shared_room() const;
  // Does no other lane wait with something that goes before this? What counts for the peer's own room is who waits for the
  // same peer, and, as these take from the window too, who waits for the window while a whole piece still fits into it. A lane
  // that may not is woken when that changes.
  bool may_take_own(std::size_t lane, std::size_t slot, Claim claim);
  bool may_take_shared(std::size_t lane, Claim claim) const;
  // Has may_take_own() said no since the last call? Then the lane should ask again when it has changed anything itself.
  bool has_yielded(std::size_t lane) { return lanes_[lane]->yields.exchange(false); }
  // False, and nothing is taken, where there is no such room (any more).
  bool take_own(std::size_t lane, std::size_t slot, std::size_t bytes);
  bool take_shared(std::size_t lane, std::size_t slot, std::size_t bytes);
  void give_back(std::size_t lane, std::size_t slot, std::size_t bytes);

  // What the lane waits with, for the peer and for the window. True when that has changed.
  bool wait_for_peer(std::size_t lane, std::size_t slot, Claim claim);
  bool wait_for_window(std::size_t lane, Claim claim);
  // Lets those others look again who may find room now: in the window, or with one of these peers.
  void wake_others(std::size_t lane, std::span<const std::size_t> slots);

  std::size_t bytes_in_flight() const { return in_flight_; }
  std::size_t bytes_in_flight_max() const { return in_flight_max_; }

 private:
  // Each on a cache line of its own: they are written by different threads.
  struct alignas(64) Lane {
    runtime::Runtime* runtime = nullptr;
    std::atomic<Claim> waits_with = kNothing;  // for the window
    std::atomic<std::size_t> in_flight = 0;
    std::atomic<bool> yields = false;          // has not taken a peer's own room that was there, because another goes before
    std::atomic<bool> woken = false;           // a task is posted that has not begun
    runtime::Task look_again;                  // lane only
  };
  struct Peer {
    std::size_t own_bytes = 0;
    std::atomic<std::size_t> in_flight = 0;
    std::unique_ptr<std::atomic<Claim>[]> waits_with;  // by lane
  };

  void wake(std::size_t lane);
  bool is_first(std::size_t lane, std::size_t slot, Claim claim) const;
  bool goes_before(std::size_t other, Claim waits_with, std::size_t lane, Claim claim) const;
  void note_in_flight(std::size_t bytes);

  const std::size_t window_bytes_;
  std::unordered_map<Member, std::size_t> slots_;
  std::vector<std::shared_ptr<Lane>> lanes_;  // shared with the tasks that are posted
  std::unique_ptr<Peer[]> peers_;             // by slot; the last is that of all who are not sent to
  std::atomic<std::size_t> in_flight_ = 0;
  std::atomic<std::size_t> in_flight_max_ = 0;
};

}  // namespace poseidon::session
