// What a server says of its gate.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "wire/gate.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> body = std::as_bytes(std::span(data, size));
  const Result<wire::GateNews> news = wire::decode_gate(body);
  if (!news) return 0;
  // What is accepted must come back the same.
  if (!std::ranges::equal(wire::encode_gate(*news), body)) std::abort();
  return 0;
}
