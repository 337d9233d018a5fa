// The device that a replayed worker computes on: does one thing after the other, each for its time, and nothing else.
//
// Work begins when it is asked for or when the work before it has ended, whichever is later, and ends exactly its time after
// that: a timer that fires late delays nobody's work, only the word of it. So a busy event loop does not slow the device down,
// as it would not slow down a GPU. Lane only.
#pragma once

#include <algorithm>

#include "runtime/runtime.h"

namespace poseidon::replay {

class Device {
 public:
  explicit Device(runtime::Runtime& runtime) : runtime_(runtime) {}

  // `not_before`: when what the work needs was there; the past is allowed.
  void run(runtime::Time not_before, runtime::Duration cost, std::function<void(runtime::Time ended)> done) {
    free_ = std::max(free_, not_before) + cost;
    busy_ += cost;
    const runtime::Time end = free_;
    const runtime::Duration left = end - runtime_.now();
    if (left.count() <= 0) return done(end);
    runtime_.after(left, [end, done = std::move(done)] { done(end); });
  }
  runtime::Duration busy() const { return busy_; }

 private:
  runtime::Runtime& runtime_;
  runtime::Time free_{};
  runtime::Duration busy_{};
};

}  // namespace poseidon::replay
