// What a server says of its gate: whether any chunk may be pushed to it, or only those that it names.
//
// A server whose staging memory is nearly used up closes its gate, admits chunks one after the other, and opens it again
// (store/gate.h). Closings are numbered and what belongs to one adds up, so frames that overtake each other mean the same in
// any order. Pure; the byte table stands in docs/wire.md.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/types.h"
#include "wire/frame.h"

namespace poseidon::wire {

// One iteration's contributions to a chunk.
struct ChunkName {
  TensorId tensor{0};
  std::uint64_t offset = 0;  // of the chunk in the tensor, bytes
  Iteration iteration = 0;
  friend auto operator<=>(const ChunkName&, const ChunkName&) = default;
};

struct GateNews {
  std::uint64_t closing = 1;        // which closing of this server's gate, counted from 1
  bool open = false;                // it is over: everything may be pushed
  std::vector<ChunkName> admitted;  // in addition to those that were named before in this closing; none when open
  friend bool operator==(const GateNews&, const GateNews&) = default;
};

constexpr std::size_t kGateHeadBytes = 16;
constexpr std::size_t kChunkNameBytes = 20;
// How many chunks one frame can name.
constexpr std::size_t kAdmittedMax = (kGateBytesMax - kGateHeadBytes) / kChunkNameBytes;

// At most kAdmittedMax chunks.
std::vector<std::byte> encode_gate(const GateNews& news);
// kCorruptFrame with the reason where the body is none.
Result<GateNews> decode_gate(std::span<const std::byte> body);

}  // namespace poseidon::wire
