// Delivery of frames between members, as the state machines see it.
//
// Who sends names the memory that the payload lies in, and keeps it unchanged until the frame has left. Who receives names
// the memory that it shall land in: before it arrives where that is known (`expect`: in bulk-synchronous training a worker
// knows every sum that will come), or in an acceptor, asked when the header is there. Frames between two members on one lane
// arrive in order; across lanes they do not.
//
// Lane only, all of it: functions are called on the lane and call back on it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "poseidon/error.h"
#include "runtime/memory.h"
#include "runtime/runtime.h"
#include "wire/frame.h"

namespace poseidon::runtime {

// The coordinator is no worker, and has this number in every job.
constexpr Member kCoordinator{0xFFFFFFFF};
// No member: what is expected from it may come from anybody.
constexpr Member kAnybody{0xFFFFFFFE};

// One event loop and, for each pair of members, one stream.
enum class Lane : std::uint32_t {};

// A transport is one lane's, and reaches the same lane of its peers: there is no other lane to name today.
struct Destination {
  Member peer{0};
  Lane lane{0};
};

// Where a member's lane can be reached, e.g. {"127.0.0.1", 40213}.
struct Endpoint {
  std::string host;
  std::uint16_t port = 0;
  Lane lane{0};
};

// The parts of a frame. Most frames have one, which needs no memory of its own.
class Parts {
 public:
  Parts() = default;
  Parts(std::initializer_list<wire::PartHeader> parts) {
    for (const wire::PartHeader& part : parts) push_back(part);
  }
  void push_back(const wire::PartHeader& part) {
    if (size_ == 1) more_.push_back(one_);
    if (size_ == 0) one_ = part;
    if (size_ > 0) more_.push_back(part);
    ++size_;
  }
  void clear() {
    size_ = 0;
    more_.clear();
  }
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  const wire::PartHeader* data() const { return size_ > 1 ? more_.data() : &one_; }
  const wire::PartHeader* begin() const { return data(); }
  const wire::PartHeader* end() const { return data() + size_; }
  const wire::PartHeader& front() const { return *data(); }
  const wire::PartHeader& operator[](std::size_t i) const { return data()[i]; }

 private:
  std::size_t size_ = 0;
  wire::PartHeader one_;
  std::vector<wire::PartHeader> more_;  // all of them, where there are several
};

// One part alone, or several that share a frame. The payload is that of all parts, one after the other; size-only payload has no slices.
struct Frame {
  Parts parts;
  std::vector<Slice> payload;
  std::uint32_t credit = 0;
};

// What a message is called. The same for all its parts.
struct Tag {
  wire::FrameType type = wire::FrameType::kSum;
  TensorId tensor{0};
  Iteration iteration = 0;
  friend bool operator==(const Tag&, const Tag&) = default;
};

// Called when all bytes of a part are in place.
using PartFn = std::function<void(Member from, const wire::PartHeader& part)>;

// Asked once for each part whose header has come, whether it may come.
using AdmitFn = std::function<bool(Member from, const wire::PartHeader& part)>;

// Where the bytes [begin, end) of a message shall land: byte `begin` is the layout's first.
struct Sink {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  Layout layout;
  PartFn on_part;
  AdmitFn admit;  // empty: what its range holds, once
};
enum class SinkId : std::uint64_t {};

// Names the memory for one part that nobody expected (the sink serves this part only, its range may be the whole message),
// or says why it may not come: then the link is closed.
using AcceptFn = std::function<Result<Sink>(Member from, const wire::PartHeader& part)>;
// Takes the whole body of a frame that is no data: control, probes, credit.
using BodyFn = std::function<void(Member from, const wire::FrameHeader& header, std::vector<std::byte> body)>;

using SentFn = std::function<void()>;

// Told of each frame that has come: its data parts (none where it carries no data), all in place, and the credit with it.
// Runs before the parts' own callbacks.
using ReceiptFn = std::function<void(Member from, std::span<const wire::PartHeader> data_parts, std::uint32_t credit)>;

struct PeerListener {
  std::function<void(Member peer)> on_up;
  // The link is gone, and with it whatever was on its way. The text says why in words a user can read.
  std::function<void(Member peer, const Error& why)> on_down;
  // A frame of any kind has come: the peer lives.
  std::function<void(Member peer)> on_alive;
};

// Bytes on a link since it came up, with framing.
struct LinkBytes {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;

  virtual Member self() const = 0;

  virtual void set_listener(PeerListener listener) = 0;
  // Opens a link and reports on_up, or on_down when no endpoint has answered and proved itself before the deadline.
  virtual void connect(Member peer, const std::vector<Endpoint>& endpoints, Duration deadline) = 0;
  // Closes a link without on_down. Frames that were sent before still go out.
  virtual void disconnect(Member peer) = 0;

  // Data frames are stamped with the epoch. Those of an older one are dropped on arrival; one of a future epoch pauses its
  // stream until this is called with it.
  virtual void set_epoch(Epoch epoch) = 0;

  // The payload is borrowed until `on_sent`: then the bytes are out of the caller's memory. Where the link is down or goes
  // down `on_sent` runs as well, since nothing is borrowed any more; on_down tells that it failed.
  virtual void send(Destination to, Frame frame, SentFn on_sent) = 0;

  // Parts of the message that fall within the sink's range land in its layout. The sink is used up, and forgotten, once as
  // many bytes as its range holds have come. One with `admit` takes what that admits, until it is revoked.
  virtual SinkId expect(Member from, const Tag& tag, Sink sink) = 0;
  // Bytes that still arrive for a revoked sink drain away. Returns at once, also in the middle of a part; after that the
  // memory is not touched and `on_part` is not called.
  virtual void revoke(SinkId sink) = 0;
  // For data parts that no sink expects; one acceptor for each type.
  virtual void set_acceptor(wire::FrameType type, AcceptFn accept) = 0;
  virtual void set_body_handler(wire::FrameType type, BodyFn handle) = 0;
  virtual void set_receipt_handler(ReceiptFn handle) = 0;

  // Memory that many frames will come from or go to: pinned, registered with a network card, shared. Returns the region with
  // its key; plain TCP has nothing to do.
  virtual Region register_memory(const Region& region) = 0;

  virtual LinkBytes link_bytes(Member peer) const = 0;
};

}  // namespace poseidon::runtime
