// What a worker of the same host says about its shared memory.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "wire/host_message.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const Result<wire::HostMessage> message = wire::decode_host_message(bytes);
  if (!message) return 0;
  // What is accepted is written in one way only.
  const auto again = wire::encode_host_message(*message);
  if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) std::abort();
  return 0;
}
