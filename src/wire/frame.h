// The bytes that members exchange: frames, their headers and their limits.
//
// Pure: encodes, decodes and validates, and knows no socket. Everything here is little-endian. The byte table stands in
// docs/wire.md, and tests/wire/frame_test.cpp holds literal bytes. Frames are untrusted input: decode_header() and
// decode_parts() bound every length before anybody allocates for it.
//
// A frame carries one part, or, when it is fused, a table of parts and then their payloads one after the other: small
// tensors for one peer share a frame. A part is a byte range of a message, and a message is what (type, tensor, iteration)
// of one sender name: a gradient, a sum, a packed pair of factors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/types.h"

namespace poseidon::wire {

enum class FrameType : std::uint8_t {
  // Before a link is trusted (wire/handshake.h).
  kHello = 1,
  kChallenge = 2,
  kProof = 3,
  kWelcome = 4,
  kRefusal = 5,
  // Between members and the coordinator.
  kControl = 16,  // a JSON body (cluster/messages.h)
  kCredit = 17,   // no payload: the header's credit field is all
  kGate = 18,     // which chunks a server takes while its staging memory is short (wire/gate.h)
  kHost = 19,     // between workers of one host: what lies where in their shared memory (wire/host_message.h)
  // Data.
  kPush = 32,    // a worker's dense gradient, to the server that owns the range
  kSum = 33,     // the sum over the workers, to every worker
  kFactor = 34,  // the rows of U and then the columns of V that the receiver's block needs, packed; contributors = rows
  kBlock = 35,   // the product of an owner's factors: its block of the matrix, packed by rows
  kValue = 36,   // a parameter's value, from the member that is right to those that copy
  kProbe = 37,   // measuring: the payload means nothing; the receiver answers a part flagged kEcho with an empty one
  kMessage = 38, // of a collective operation: tensor = channel, iteration = number (collective/mailbox.h)
  kReady = 39,   // no payload: the receiver of the message of this name has room for `offset` bytes
  // Many parts.
  kFused = 48,
};

// A data frame carries at most one piece: the unit of preemption and of summing. At 1 Gbit/s an urgent frame waits half a
// millisecond behind one; a header adds 0.1 %.
constexpr std::size_t kPieceBytes = 64 * 1024;
constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kPartBytes = 40;
constexpr std::size_t kPartsMax = 256;           // parts of a fused frame
constexpr std::size_t kHandshakeBytesMax = 512;  // body of a frame on a link that is not trusted yet
constexpr std::size_t kControlBytesMax = std::size_t{16} << 20;  // a list of 100,000 parameters fits
constexpr std::size_t kGateBytesMax = kPieceBytes;               // 3,276 chunks; a server says the rest in further frames
constexpr std::size_t kHostMessageBytes = 72;
constexpr std::uint8_t kVersion = 2;

// Flags of a part.
constexpr std::uint16_t kAbsent = 1;  // the sender has no gradient for the chunk that starts at `offset`: no payload
constexpr std::uint16_t kEcho = 2;    // kProbe: answer this one

// What a part says of itself.
struct PartHeader {
  FrameType type = FrameType::kControl;
  std::uint16_t flags = 0;
  TensorId tensor{0};
  Iteration iteration = 0;         // or the clock, in asynchronous modes
  std::uint64_t offset = 0;        // of the payload in the message, bytes
  std::uint32_t bytes = 0;         // of payload
  std::uint32_t contributors = 0;  // kSum: workers in the sum; kFactor: rows
  std::uint32_t samples = 0;       // kPush, kFactor: of this worker; kSum, kBlock: of all contributors

  friend bool operator==(const PartHeader&, const PartHeader&) = default;
};

struct FrameHeader {
  std::uint64_t job = 0;      // differs between jobs: a stray connection never mixes them
  Epoch epoch{0};
  Member sender{0};
  std::uint32_t credit = 0;   // payload bytes that the sender has received since it last returned credit on this link
  PartHeader part;            // of a fused frame: type kFused, contributors = number of parts, bytes = table and payloads

  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

constexpr bool is_handshake(FrameType type) { return type >= FrameType::kHello && type <= FrameType::kRefusal; }
constexpr bool is_data(FrameType type) { return type >= FrameType::kPush && type <= FrameType::kFused; }

std::array<std::byte, kHeaderBytes> encode_header(const FrameHeader& header);
// kCorruptFrame with the reason where the bytes are not a header that this version allows.
Result<FrameHeader> decode_header(std::span<const std::byte, kHeaderBytes> bytes);

// The table of a fused frame, parts.size() * kPartBytes bytes.
std::vector<std::byte> encode_parts(std::span<const PartHeader> parts);
// How many bytes of table follow a header; 0 when it is not fused.
std::size_t table_bytes(const FrameHeader& header);
// `table` is table_bytes(header) long. Checks that the parts' payloads fill the frame exactly.
Result<std::vector<PartHeader>> decode_parts(const FrameHeader& header, std::span<const std::byte> table);

}  // namespace poseidon::wire
