// The world as the state machines see it: time, timers and tasks.
//
// Everything in store, factor, session and cluster is event-driven and reaches the outside only through this interface and
// runtime::Transport. It owns no thread, no socket and no clock of its own, so the same objects run on real event loops
// (runtime/real) and in virtual time (runtime/sim).
//
// One Runtime is one lane: all its tasks run one after the other, so what belongs to a lane needs no lock.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "base/event.h"

namespace poseidon::runtime {

using base::Time;
using Duration = std::chrono::nanoseconds;
using Task = std::function<void()>;

enum class TimerId : std::uint64_t {};

class Runtime {
 public:
  virtual ~Runtime() = default;

  // May be called from any thread.
  virtual Time now() const = 0;
  // Runs `task` on the lane, after everything posted before it by the same thread. May be called from any thread.
  virtual void post(Task task) = 0;

  // On the lane only. Runs `task` once, not before `delay` has passed.
  virtual TimerId after(Duration delay, Task task) = 0;
  // On the lane only. A timer that has run or was cancelled is ignored.
  virtual void cancel(TimerId timer) = 0;
};

}  // namespace poseidon::runtime
