// The one way by which data leaves a member: a request with a priority.
//
// Servers and factor exchanges put what they have to send here; the send scheduler (session/) decides what goes next over all
// of them together.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>

#include "runtime/transport.h"

namespace poseidon::runtime {

enum class SendClass : std::uint8_t { kControl = 0, kFactor = 1, kSum = 2, kPush = 3 };

// Smaller goes first: control before all; then the older iteration; then the layer nearest the input, since the next forward
// pass wants it first; then factors, which are small and let their owner begin with a block that it sends to all (were blocks
// first, an owner whose factors are late would begin when all others have ended); then sums before pushes, since a sum ends
// somebody's waiting.
struct Priority {
  Iteration iteration = 0;
  std::uint32_t layer = 0;
  SendClass send_class = SendClass::kPush;

  friend std::strong_ordering operator<=>(const Priority& a, const Priority& b) {
    const bool a_control = a.send_class == SendClass::kControl;
    const bool b_control = b.send_class == SendClass::kControl;
    if (a_control != b_control) return a_control ? std::strong_ordering::less : std::strong_ordering::greater;
    if (const auto order = a.iteration <=> b.iteration; order != 0) return order;
    if (const auto order = a.layer <=> b.layer; order != 0) return order;
    return a.send_class <=> b.send_class;
  }
  friend bool operator==(const Priority&, const Priority&) = default;
};

struct SendRequest {
  Member to{0};
  Priority priority;
  wire::PartHeader part;       // type, flags, tensor, iteration, contributors, samples; offset and bytes are set per piece
  std::uint64_t begin = 0;     // the message's bytes [begin, begin + source.bytes()) are sent, in pieces
  Layout source;               // borrowed until on_sent, or kept alive by `hold`
  std::shared_ptr<void> hold;  // may be null
  SentFn on_sent;              // may be null; runs when the last piece has left
};

class Outbox {
 public:
  virtual ~Outbox() = default;
  virtual void enqueue(SendRequest request) = 0;
};

}  // namespace poseidon::runtime
