#include "wire/frame.h"

#include "base/checksum.h"
#include "base/text.h"
#include "wire/little_endian.h"

namespace poseidon::wire {
namespace {

// "PSDN" as it stands in memory.
constexpr std::uint32_t kMagic = 0x4E445350;

bool known(std::uint8_t type) {
  switch (static_cast<FrameType>(type)) {
    case FrameType::kHello:
    case FrameType::kChallenge:
    case FrameType::kProof:
    case FrameType::kWelcome:
    case FrameType::kRefusal:
    case FrameType::kControl:
    case FrameType::kCredit:
    case FrameType::kGate:
    case FrameType::kHost:
    case FrameType::kProbe:
    case FrameType::kMessage:
    case FrameType::kReady:
    case FrameType::kPush:
    case FrameType::kSum:
    case FrameType::kFactor:
    case FrameType::kBlock:
    case FrameType::kValue:
    case FrameType::kFused:
      return true;
  }
  return false;
}

std::size_t payload_bytes_max(FrameType type) {
  if (is_handshake(type)) return kHandshakeBytesMax;
  if (type == FrameType::kControl) return kControlBytesMax;
  if (type == FrameType::kCredit) return 0;
  if (type == FrameType::kGate) return kGateBytesMax;
  if (type == FrameType::kHost) return kHostMessageBytes;
  if (type == FrameType::kFused) return kPieceBytes + kPartsMax * kPartBytes;
  return kPieceBytes;
}

Error corrupt(std::string reason) { return Error{ErrorCode::kCorruptFrame, std::move(reason)}; }

// Checks what frames and parts have in common.
Status check_part(const PartHeader& part) {
  if (part.bytes > payload_bytes_max(part.type)) {
    return corrupt(base::concat("a frame of type ", static_cast<int>(part.type), " announces ", part.bytes,
                                " bytes of payload, at most ", payload_bytes_max(part.type), " are allowed"));
  }
  if (part.offset > UINT64_MAX - part.bytes) return corrupt("a frame's byte range goes past the end of all numbers");
  if ((part.flags & ~(kAbsent | kEcho)) != 0) return corrupt(base::concat("a frame has unknown flags ", part.flags));
  if ((part.flags & kAbsent) != 0 && part.bytes != 0) return corrupt("a frame flagged absent has a payload");
  return {};
}

void put_part(Writer& out, const PartHeader& part) {
  out.put(static_cast<std::uint8_t>(part.type)).put(std::uint8_t{0}).put(part.flags).put(index(part.tensor));
  out.put(std::uint64_t{part.iteration}).put(part.offset);
  out.put(part.bytes).put(part.contributors).put(part.samples).put(std::uint32_t{0});
}

}  // namespace

std::array<std::byte, kHeaderBytes> encode_header(const FrameHeader& header) {
  std::array<std::byte, kHeaderBytes> bytes{};
  const PartHeader& part = header.part;
  Writer(bytes.data())
      .put(kMagic)
      .put(kVersion)
      .put(static_cast<std::uint8_t>(part.type))
      .put(part.flags)
      .put(header.job)
      .put(index(header.epoch))
      .put(index(header.sender))
      .put(index(part.tensor))
      .put(part.bytes)
      .put(std::uint64_t{part.iteration})
      .put(part.offset)
      .put(part.contributors)
      .put(part.samples)
      .put(header.credit);
  Writer(bytes.data() + kHeaderBytes - 4).put(base::crc32c(std::span(bytes).first<kHeaderBytes - 4>()));
  return bytes;
}

Result<FrameHeader> decode_header(std::span<const std::byte, kHeaderBytes> bytes) {
  Reader in(bytes.data());
  if (in.take<std::uint32_t>() != kMagic) return corrupt("the bytes do not begin a frame of Poseidon's");
  const auto version = in.take<std::uint8_t>();
  if (version != kVersion) {
    return corrupt(base::concat("a frame of protocol version ", int{version}, ", this program speaks ", int{kVersion}));
  }
  if (Reader(bytes.data() + kHeaderBytes - 4).take<std::uint32_t>() != base::crc32c(bytes.first<kHeaderBytes - 4>())) {
    return corrupt("a frame header's checksum is wrong");
  }
  const auto type = in.take<std::uint8_t>();
  if (!known(type)) return corrupt(base::concat("a frame of unknown type ", int{type}));
  FrameHeader header;
  header.part.type = static_cast<FrameType>(type);
  header.part.flags = in.take<std::uint16_t>();
  header.job = in.take<std::uint64_t>();
  header.epoch = Epoch{in.take<std::uint32_t>()};
  header.sender = Member{in.take<std::uint32_t>()};
  header.part.tensor = TensorId{in.take<std::uint32_t>()};
  header.part.bytes = in.take<std::uint32_t>();
  header.part.iteration = in.take<std::uint64_t>();
  header.part.offset = in.take<std::uint64_t>();
  header.part.contributors = in.take<std::uint32_t>();
  header.part.samples = in.take<std::uint32_t>();
  header.credit = in.take<std::uint32_t>();
  if (const Status status = check_part(header.part); !status) return status.error();
  if (header.part.type == FrameType::kFused) {
    if (header.part.contributors == 0 || header.part.contributors > kPartsMax) {
      return corrupt(base::concat("a fused frame of ", header.part.contributors, " parts, 1 to ", kPartsMax, " are allowed"));
    }
    if (header.part.bytes < table_bytes(header)) return corrupt("a fused frame is shorter than its table");
  }
  return header;
}

std::vector<std::byte> encode_parts(std::span<const PartHeader> parts) {
  std::vector<std::byte> bytes(parts.size() * kPartBytes);
  Writer out(bytes.data());
  for (const PartHeader& part : parts) put_part(out, part);
  return bytes;
}

std::size_t table_bytes(const FrameHeader& header) {
  return header.part.type == FrameType::kFused ? header.part.contributors * kPartBytes : 0;
}

Result<std::vector<PartHeader>> decode_parts(const FrameHeader& header, std::span<const std::byte> table) {
  if (table.size() != table_bytes(header)) return corrupt("a fused frame's table has the wrong length");
  std::vector<PartHeader> parts;
  parts.reserve(table.size() / kPartBytes);
  std::size_t payload = 0;
  for (std::size_t at = 0; at < table.size(); at += kPartBytes) {
    Reader in(table.data() + at);
    const auto type = in.take<std::uint8_t>();
    in.take<std::uint8_t>();
    if (!known(type) || !is_data(static_cast<FrameType>(type)) || static_cast<FrameType>(type) == FrameType::kFused) {
      return corrupt(base::concat("a fused frame holds a part of type ", int{type}));
    }
    PartHeader part;
    part.type = static_cast<FrameType>(type);
    part.flags = in.take<std::uint16_t>();
    part.tensor = TensorId{in.take<std::uint32_t>()};
    part.iteration = in.take<std::uint64_t>();
    part.offset = in.take<std::uint64_t>();
    part.bytes = in.take<std::uint32_t>();
    part.contributors = in.take<std::uint32_t>();
    part.samples = in.take<std::uint32_t>();
    if (const Status status = check_part(part); !status) return status.error();
    payload += part.bytes;
    parts.push_back(part);
  }
  if (payload + table.size() != header.part.bytes) {
    return corrupt(base::concat("a fused frame's parts add up to ", payload + table.size(), " bytes, the frame has ",
                                header.part.bytes));
  }
  return parts;
}

}  // namespace poseidon::wire
