// What workers of one host tell each other about their shared memory: the bodies of frames of type kHost.
//
// The numbers themselves never travel: a message says where they lie, or that they are done. Pure, like all of this folder, and
// little-endian; decode_host_message() accepts no field that has no meaning. The table stands in docs/wire.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "poseidon/error.h"
#include "poseidon/types.h"
#include "wire/frame.h"

namespace poseidon::wire {

enum class HostMessageKind : std::uint8_t {
  kReady = 1,      // my part of the tensor (or layer) lies at the places; bytes 0: I have none
  kShareDone = 2,  // my share of the sum, or of the product, is in its place
  kResult = 3,     // the leader's memory holds the result over all hosts
  kTaken = 4,      // I have copied it
  kValue = 5,      // a parameter's value lies at the first place
  kValueTaken = 6,
};

// Bytes of the sender's shared memory.
struct HostPlace {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  friend bool operator==(const HostPlace&, const HostPlace&) = default;
};

struct HostMessage {
  HostMessageKind kind = HostMessageKind::kReady;
  bool absent = false;             // kReady: no gradient lies there, but the result is wanted
  TensorId tensor{0};              // for a factor layer its weight
  Iteration iteration = 0;
  std::uint32_t contributors = 0;  // kResult
  std::uint32_t samples = 0;       // kReady: of the sender; kResult: of all contributors
  // Dense: where the gradient lies and the sum shall. Factors: U and then V; the weight's sum; the bias's.
  std::array<HostPlace, 3> places{};

  friend bool operator==(const HostMessage&, const HostMessage&) = default;
};

std::array<std::byte, kHostMessageBytes> encode_host_message(const HostMessage& message);
// kCorruptFrame with the reason where the bytes are none.
Result<HostMessage> decode_host_message(std::span<const std::byte> bytes);

}  // namespace poseidon::wire
