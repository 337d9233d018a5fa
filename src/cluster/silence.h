// Who has not been heard of for too long. Pure: it counts ticks and asks no clock.
//
// Silence is counted in ticks of the listener's own timer, not in seconds. A process that was itself stopped for a minute, or
// starved of its CPU, therefore suspects nobody when it comes back: its timer has ticked once.
#pragma once

#include <chrono>
#include <map>
#include <vector>

#include "poseidon/types.h"

namespace poseidon::cluster {

class SilenceDetector {
 public:
  explicit SilenceDetector(int silent_ticks_max) : silent_ticks_max_(silent_ticks_max) {}

  void watch(Member peer) { silent_ticks_[peer] = 0; }
  void forget(Member peer) { silent_ticks_.erase(peer); }
  void heard(Member peer) {
    if (const auto found = silent_ticks_.find(peer); found != silent_ticks_.end()) found->second = 0;
  }
  // One more interval has passed. Returns those who have now been silent for `silent_ticks_max` of them.
  std::vector<Member> tick() {
    std::vector<Member> suspects;
    for (auto& [peer, ticks] : silent_ticks_) {
      if (++ticks == silent_ticks_max_) suspects.push_back(peer);
    }
    return suspects;
  }

 private:
  int silent_ticks_max_;
  std::map<Member, int> silent_ticks_;
};

// 10 × 300 ms: a peer that fell silent is noticed within 3.3 s, and none is suspected for two lost seconds, which a processor that
// others share may take from a virtual machine. (One that dies is noticed at once: its connections are closed.)
struct HeartbeatOptions {
  std::chrono::nanoseconds interval = std::chrono::milliseconds(300);
  int silent_intervals_max = 10;
};

}  // namespace poseidon::cluster
