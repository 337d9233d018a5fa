// A stranger's side of the handshake: nothing it says may let it in, or break anything.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "wire/handshake.h"

using namespace poseidon;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  static const wire::JobKey key = wire::job_key(std::vector<std::byte>(32, std::byte{42}));
  wire::Handshake side = (data[0] & 1) != 0 ? wire::Handshake::connector(key, Member{1}, Member{0}, 0)
                                            : wire::Handshake::acceptor(key, Member{0}, [](Member, std::uint32_t) { return Status{}; });
  side.start();
  std::size_t at = 1;
  while (at < size && !side.finished()) {
    wire::FrameHeader header;
    header.job = key.job;
    header.part.type = static_cast<wire::FrameType>(data[at++]);
    header.sender = Member{at < size ? data[at] : 0u};
    const std::size_t length = at < size ? std::min<std::size_t>(data[at], size - at) : 0;
    if (!side.on_frame(header, std::as_bytes(std::span(data + at, length))).ok()) return 0;
    at += length + 1;
  }
  // A connector waits for a welcome that only follows a proof of the secret; an acceptor is finished only after one.
  if (side.finished()) std::abort();
  return 0;
}
