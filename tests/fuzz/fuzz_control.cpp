// The control messages of a member.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "cluster/messages.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Result<cluster::Message> message = cluster::decode(std::as_bytes(std::span(data, size)));
  if (!message) return 0;
  // What is accepted can be said again, and means the same.
  const std::string text = cluster::encode(*message);
  const Result<cluster::Message> again = cluster::decode(std::as_bytes(std::span(text.data(), text.size())));
  if (!again || again->index() != message->index()) std::abort();
  return 0;
}
