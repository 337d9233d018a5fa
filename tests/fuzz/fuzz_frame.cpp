// The frames of an untrusted peer: headers, and the tables of fused frames.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "base/checksum.h"
#include "wire/frame.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < wire::kHeaderBytes) return 0;
  std::array<std::byte, wire::kHeaderBytes> header_bytes{};
  std::copy_n(reinterpret_cast<const std::byte*>(data), wire::kHeaderBytes, header_bytes.begin());
  // A peer computes its checksum, so the fuzzer need not find it.
  const std::uint32_t checksum = base::crc32c(std::span(header_bytes).first<wire::kHeaderBytes - 4>());
  for (std::size_t i = 0; i < 4; ++i) header_bytes[wire::kHeaderBytes - 4 + i] = static_cast<std::byte>(checksum >> (8 * i));
  const Result<wire::FrameHeader> header = wire::decode_header(header_bytes);
  if (!header) return 0;
  // What is accepted must come back the same.
  if (wire::encode_header(*header) != header_bytes) std::abort();
  const std::size_t table = wire::table_bytes(*header);
  if (size < wire::kHeaderBytes + table) return 0;
  const Result<std::vector<wire::PartHeader>> parts =
      wire::decode_parts(*header, std::as_bytes(std::span(data + wire::kHeaderBytes, table)));
  if (!parts) return 0;
  std::size_t payload = 0;
  for (const wire::PartHeader& part : *parts) payload += part.bytes;
  if (table > 0 && payload + table != header->part.bytes) std::abort();
  return 0;
}
