// Looks every second how long something has been waited for, says whom for, and ends what takes too long.
//
// Lane only.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "poseidon/error.h"
#include "runtime/runtime.h"

namespace poseidon::session {

struct WaitLimits {
  runtime::Duration explain_after;
  runtime::Duration wait_max;
};

// What is watched.
struct Waits {
  std::function<runtime::Duration()> longest;
  std::function<std::vector<std::string>(runtime::Duration age, std::size_t count)> overdue;
  std::function<void(const Error& error)> give_up;
};

class WaitWatch {
 public:
  // Everything outlives the watch.
  WaitWatch(runtime::Runtime& runtime, WaitLimits limits, Waits waits);
  ~WaitWatch();

  // Runs by itself every second; public for tests.
  void look();

 private:
  void schedule();

  runtime::Runtime& runtime_;
  WaitLimits limits_;
  Waits waits_;
  runtime::TimerId timer_{};
  runtime::Duration next_report_{};
};

}  // namespace poseidon::session
