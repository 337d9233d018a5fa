// Which peer is served next, in logarithmic time.
//
// A binary heap of peers by urgency, in which every peer knows its place, so that any can be moved or taken out. With a thousand
// peers a scan for the most urgent at each frame took longer than the frame on the wire.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/check.h"
#include "poseidon/types.h"
#include "runtime/outbox.h"

namespace poseidon::session {

// A runtime::Priority that compares as two numbers. Iterations stay below 2^63.
struct Urgency {
  std::uint64_t major = 0;  // control before all, then the iteration
  std::uint64_t minor = 0;  // the layer, then the class

  static Urgency of(const runtime::Priority& priority) {
    const bool is_control = priority.send_class == runtime::SendClass::kControl;
    return {(is_control ? 0 : std::uint64_t{1} << 63) | priority.iteration,
            std::uint64_t{priority.layer} << 8 | static_cast<std::uint64_t>(priority.send_class)};
  }
  friend std::strong_ordering operator<=>(const Urgency&, const Urgency&) = default;
};

// Among equally urgent peers the one that was served longest ago; before that, the lowest number.
struct Turn {
  Urgency urgency;
  std::uint64_t served = 0;
  std::uint32_t member = 0;
  friend std::strong_ordering operator<=>(const Turn&, const Turn&) = default;
};

// `Peer` has a member `std::size_t place`, which belongs to the one order that it stands in.
template <typename Peer>
class PeerOrder {
 public:
  bool empty() const { return entries_.empty(); }
  Peer* first() const { return entries_.empty() ? nullptr : entries_.front().peer; }
  const Turn& first_turn() const { return entries_.front().turn; }

  void insert(Peer* peer, const Turn& turn) {
    entries_.push_back({turn, peer});
    rise(entries_.size() - 1);
  }
  void remove(Peer* peer) {
    const std::size_t hole = peer->place;
    POSEIDON_CHECK(hole < entries_.size() && entries_[hole].peer == peer, "a peer that does not stand in this order");
    const Entry last = entries_.back();
    entries_.pop_back();
    if (hole < entries_.size()) put_back(hole, last);
  }
  void move(Peer* peer, const Turn& turn) { put_back(peer->place, {turn, peer}); }

  // The first of those that `fits`, by looking at all.
  template <typename Fits>
  const std::pair<Turn, Peer*> first_that(Fits fits) const {
    std::pair<Turn, Peer*> best{{}, nullptr};
    for (const Entry& entry : entries_) {
      if (fits(*entry.peer) && (best.second == nullptr || entry.turn < best.first)) best = {entry.turn, entry.peer};
    }
    return best;
  }

 private:
  struct Entry {
    Turn turn;
    Peer* peer;
  };
  void put(std::size_t place, const Entry& entry) {
    entries_[place] = entry;
    entry.peer->place = place;
  }
  void put_back(std::size_t place, const Entry& entry) {
    entries_[place] = entry;
    rise(place);
    sink(entry.peer->place);
  }
  void rise(std::size_t place) {
    const Entry entry = entries_[place];
    while (place > 0 && entry.turn < entries_[(place - 1) / 2].turn) {
      put(place, entries_[(place - 1) / 2]);
      place = (place - 1) / 2;
    }
    put(place, entry);
  }
  void sink(std::size_t place) {
    const Entry entry = entries_[place];
    for (std::size_t child = 2 * place + 1; child < entries_.size(); child = 2 * place + 1) {
      if (child + 1 < entries_.size() && entries_[child + 1].turn < entries_[child].turn) ++child;
      if (!(entries_[child].turn < entry.turn)) break;
      put(place, entries_[child]);
      place = child;
    }
    put(place, entry);
  }

  std::vector<Entry> entries_;
};

}  // namespace poseidon::session
