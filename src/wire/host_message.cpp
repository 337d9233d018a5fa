#include "wire/host_message.h"

#include <string>

#include "base/text.h"
#include "wire/little_endian.h"

namespace poseidon::wire {
namespace {

constexpr std::uint8_t kAbsentBit = 1;

Error corrupt(std::string reason) { return Error{ErrorCode::kCorruptFrame, std::move(reason)}; }

}  // namespace

std::array<std::byte, kHostMessageBytes> encode_host_message(const HostMessage& message) {
  std::array<std::byte, kHostMessageBytes> bytes{};
  Writer out(bytes.data());
  out.put(static_cast<std::uint8_t>(message.kind)).put(message.absent ? kAbsentBit : std::uint8_t{0}).put(std::uint16_t{0});
  out.put(index(message.tensor)).put(std::uint64_t{message.iteration}).put(message.contributors).put(message.samples);
  for (const HostPlace& place : message.places) out.put(place.offset).put(place.bytes);
  return bytes;
}

Result<HostMessage> decode_host_message(std::span<const std::byte> bytes) {
  if (bytes.size() != kHostMessageBytes) {
    return corrupt(base::concat("a message between workers of a host has ", bytes.size(), " bytes, it must have ", kHostMessageBytes));
  }
  Reader in(bytes.data());
  HostMessage message;
  const auto kind = in.take<std::uint8_t>();
  if (kind < static_cast<std::uint8_t>(HostMessageKind::kReady) || kind > static_cast<std::uint8_t>(HostMessageKind::kValueTaken)) {
    return corrupt(base::concat("a message between workers of a host of unknown kind ", int{kind}));
  }
  message.kind = static_cast<HostMessageKind>(kind);
  const auto flags = in.take<std::uint8_t>();
  const auto rest = in.take<std::uint16_t>();
  if ((flags & ~kAbsentBit) != 0 || rest != 0) return corrupt("a message between workers of a host has unknown flags");
  message.absent = flags != 0;
  message.tensor = TensorId{in.take<std::uint32_t>()};
  message.iteration = in.take<std::uint64_t>();
  message.contributors = in.take<std::uint32_t>();
  message.samples = in.take<std::uint32_t>();
  for (HostPlace& place : message.places) {
    place.offset = in.take<std::uint64_t>();
    place.bytes = in.take<std::uint64_t>();
    if (place.offset > UINT64_MAX - place.bytes) return corrupt("a place in shared memory goes past the end of all numbers");
  }
  return message;
}

}  // namespace poseidon::wire
