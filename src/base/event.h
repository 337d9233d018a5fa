// What happened when, told to whoever wants to draw or count it.
//
// The state machines report through this interface and know nothing of files or formats; trace/ listens. Recording must be
// quick and must not wait: it is called on the data path, from lanes and from the framework's threads at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "poseidon/types.h"

namespace poseidon::base {

// Since a fixed moment that all processes of a host share (CLOCK_MONOTONIC), or since the start of virtual time.
using Time = std::chrono::nanoseconds;

enum class EventKind : std::uint8_t {
  kGradientReady,  // a framework's hook ran: the gradient exists
  kQueued,         // the lane has taken the gradient: it stands in the send queue
  kFirstByte,      // the first frame of this tensor and iteration was handed to the network
  kSynced,         // the sum is in
  kUpdated,        // the optimiser step of the tensor is made
  kSpanBegin,      // a named span of the calling thread begins: "forward", "backward conv1", "wait ip1"
  kSpanEnd,        // and ends
};

struct Event {
  EventKind kind = EventKind::kSpanBegin;
  Time time{};
  Iteration iteration = 0;
  std::uint32_t tensor = 0;  // index of a tensor, for the first five kinds
  std::uint64_t bytes = 0;   // payload bytes, where they mean something
  std::string_view name;     // for spans; lives as long as the listener (a literal, or a name of the model)
};

class EventListener {
 public:
  virtual ~EventListener() = default;
  // May be called from any thread.
  virtual void record(const Event& event) = 0;
};

}  // namespace poseidon::base
