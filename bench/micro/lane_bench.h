// A lane and a network that cost nothing: what is measured is the state machine on it alone.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "support/hand_lane.h"

namespace poseidon::bench {

// Frames vanish; who got how many payload bytes is kept, so that credit can be returned.
class FreeLane : public test::HandLane {
 public:
  void send(runtime::Destination to, runtime::Frame frame, runtime::SentFn on_sent) override {
    std::uint32_t bytes = 0;
    for (const wire::PartHeader& part : frame.parts) bytes += part.bytes;
    if (bytes > 0) uncredited_.emplace_back(to.peer, bytes);
    ++frames_;
    if (on_sent) on_sent();
  }

  // Runs what was posted, and returns credit for each frame, oldest first, until nothing more leaves.
  void run_to_end() {
    run();
    while (!uncredited_.empty()) {
      const auto [from, bytes] = uncredited_.front();
      uncredited_.pop_front();
      receipt(from, {}, bytes);
      run();
    }
  }
  std::int64_t frames() const { return frames_; }

 private:
  std::deque<std::pair<Member, std::uint32_t>> uncredited_;
  std::int64_t frames_ = 0;
};

}  // namespace poseidon::bench
