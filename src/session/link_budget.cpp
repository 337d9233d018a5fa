#include "session/link_budget.h"

#include <algorithm>
#include <utility>

namespace poseidon::session {
namespace {

constexpr unsigned kClassBits = 2;
constexpr unsigned kLayerBits = 24;
constexpr unsigned kIterationBits = 37;  // and one bit for what is no control: 64

// Adds unless that would exceed `most`. Nothing may always be added.
bool add_up_to(std::atomic<std::size_t>& sum, std::size_t bytes, std::size_t most) {
  if (bytes == 0) return true;
  std::size_t now = sum.load();
  do {
    if (now + bytes > most) return false;
  } while (!sum.compare_exchange_weak(now, now + bytes));
  return true;
}

}  // namespace

LinkBudget::LinkBudget(std::size_t window_bytes, const std::vector<Member>& peers, const std::vector<runtime::Runtime*>& lanes,
                       const PeerWindows& own)
    : window_bytes_(window_bytes), peers_(std::make_unique<Peer[]>(peers.size() + 1)) {
  for (std::size_t slot = 0; slot < peers.size(); ++slot) {
    slots_[peers[slot]] = slot;
    peers_[slot].own_bytes = own.bytes(peers[slot]);
  }
  for (std::size_t slot = 0; slot <= peers.size(); ++slot) {
    peers_[slot].waits_with = std::make_unique<std::atomic<Claim>[]>(lanes.size());
    for (std::size_t lane = 0; lane < lanes.size(); ++lane) peers_[slot].waits_with[lane] = kNothing;
  }
  for (runtime::Runtime* const runtime : lanes) {
    lanes_.push_back(std::make_shared<Lane>());
    lanes_.back()->runtime = runtime;
  }
}

LinkBudget::Claim LinkBudget::claim_of(const Urgency& urgency) {
  const bool is_control = urgency.major >> 63 == 0;
  if (is_control) return 0;
  const auto fit = [](std::uint64_t value, unsigned bits) { return std::min(value, (std::uint64_t{1} << bits) - 1); };
  const std::uint64_t iteration = fit(urgency.major & ~(std::uint64_t{1} << 63), kIterationBits);
  const std::uint64_t layer = fit(urgency.minor >> 8, kLayerBits);
  const std::uint64_t send_class = fit(urgency.minor & 0xFF, kClassBits);
  return std::uint64_t{1} << 63 | iteration << (kLayerBits + kClassBits) | layer << kClassBits | send_class;
}

std::size_t LinkBudget::slot_of(Member peer) const {
  const auto found = slots_.find(peer);
  return found == slots_.end() ? slots_.size() : found->second;
}

std::size_t LinkBudget::own_room(std::size_t slot) const {
  return peers_[slot].own_bytes - std::min<std::size_t>(peers_[slot].own_bytes, peers_[slot].in_flight);
}

std::size_t LinkBudget::shared_room() const { return window_bytes_ - std::min<std::size_t>(window_bytes_, in_flight_); }

bool LinkBudget::goes_before(std::size_t other, Claim waits_with, std::size_t lane, Claim claim) const {
  if (other == lane || waits_with > claim || waits_with == kNothing) return false;
  return waits_with < claim || lanes_[other]->in_flight < lanes_[lane]->in_flight;
}

bool LinkBudget::is_first(std::size_t lane, std::size_t slot, Claim claim) const {
  for (std::size_t other = 0; other < lanes_.size(); ++other) {
    if (goes_before(other, peers_[slot].waits_with[other], lane, claim)) return false;
  }
  return shared_room() < wire::kPieceBytes || may_take_shared(lane, claim);
}

bool LinkBudget::may_take_own(std::size_t lane, std::size_t slot, Claim claim) {
  if (is_first(lane, slot, claim)) return true;
  // Say so first, and look again then: whoever goes before either finds it said or has gone.
  lanes_[lane]->yields = true;
  return is_first(lane, slot, claim);
}

bool LinkBudget::may_take_shared(std::size_t lane, Claim claim) const {
  for (std::size_t other = 0; other < lanes_.size(); ++other) {
    if (goes_before(other, lanes_[other]->waits_with, lane, claim)) return false;
  }
  return true;
}

bool LinkBudget::take_own(std::size_t lane, std::size_t slot, std::size_t bytes) {
  if (!add_up_to(peers_[slot].in_flight, bytes, peers_[slot].own_bytes)) return false;
  lanes_[lane]->in_flight += bytes;
  note_in_flight(in_flight_ += bytes);
  return true;
}

bool LinkBudget::take_shared(std::size_t lane, std::size_t slot, std::size_t bytes) {
  if (!add_up_to(in_flight_, bytes, window_bytes_)) return false;
  peers_[slot].in_flight += bytes;
  lanes_[lane]->in_flight += bytes;
  note_in_flight(in_flight_);
  return true;
}

void LinkBudget::note_in_flight(std::size_t bytes) {
  std::size_t most = in_flight_max_.load(std::memory_order_relaxed);
  while (most < bytes && !in_flight_max_.compare_exchange_weak(most, bytes)) {
  }
}

void LinkBudget::give_back(std::size_t lane, std::size_t slot, std::size_t bytes) {
  lanes_[lane]->in_flight -= bytes;
  peers_[slot].in_flight -= bytes;
  in_flight_ -= bytes;
}

bool LinkBudget::wait_for_peer(std::size_t lane, std::size_t slot, Claim claim) {
  return peers_[slot].waits_with[lane].exchange(claim) != claim;
}

bool LinkBudget::wait_for_window(std::size_t lane, Claim claim) { return lanes_[lane]->waits_with.exchange(claim) != claim; }

void LinkBudget::wake_others(std::size_t lane, std::span<const std::size_t> slots) {
  for (std::size_t other = 0; other < lanes_.size(); ++other) {
    if (other == lane) continue;
    const bool in_the_window = lanes_[other]->waits_with != kNothing && shared_room() > 0;
    if (in_the_window || lanes_[other]->yields || std::any_of(slots.begin(), slots.end(), [&](std::size_t slot) {
          return peers_[slot].waits_with[other] != kNothing && own_room(slot) > 0;
        })) {
      wake(other);
    }
  }
}

void LinkBudget::wake(std::size_t lane) {
  const std::shared_ptr<Lane>& other = lanes_[lane];
  if (other->woken.exchange(true)) return;
  other->runtime->post([other] {
    // Before it looks: what changes after this posts another task.
    other->woken = false;
    if (other->look_again) other->look_again();
  });
}

}  // namespace poseidon::session
