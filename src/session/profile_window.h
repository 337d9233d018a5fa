// Collects what a worker's iterations are like and, now and then, gives the profile of the last ones.
//
// Pure: it is told the time.
#pragma once

#include <deque>
#include <optional>

#include "plan/profile.h"
#include "runtime/runtime.h"

namespace poseidon::session {

class ProfileWindow {
 public:
  // Something has changed (a plan, a pause): what was seen is forgotten, and the next iterations warm up.
  void clear();
  void add(Iteration iteration, plan::Observation observation);
  // A profile, where one is due.
  std::optional<plan::Profile> take(runtime::Time now);

 private:
  // Memory is made and caches fill in the first iterations.
  static constexpr int kWarmUp = 3;
  // As many as a median needs not to mind two or three that were disturbed.
  static constexpr std::size_t kIterationsMin = 8;
  // Of many short iterations the last ones tell as much as all.
  static constexpr std::size_t kIterationsMax = 64;
  // Who reads the profiles decides about minutes of training.
  static constexpr runtime::Duration kEvery = std::chrono::seconds(1);

  int warm_up_left_ = kWarmUp;
  Iteration last_ = 0;
  std::deque<plan::Observation> observations_;
  std::optional<runtime::Time> since_;  // of the window; nothing: it begins with the next observation
};

}  // namespace poseidon::session
