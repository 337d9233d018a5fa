// What a launcher hears from agents, and an agent from its launcher: any bytes give messages or a sentence, and what has been read is written
// again as something that reads alike.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "launch/agent_messages.h"

using namespace poseidon::launch;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  AgentMessageReader reader(size % 2 == 0);
  for (std::size_t at = 0; at < size; at += 7) reader.feed(bytes.substr(at, 7));
  while (true) {
    const auto message = reader.next();
    if (!message || !*message) break;
    if ((*message)->body.size() > kMessageBytesMax) std::abort();
  }
  if (const auto start = decode_start(bytes); start && !decode_start(encode(*start))) std::abort();
  if (const auto hello = decode_hello(bytes); hello && !decode_hello(encode(*hello))) std::abort();
  if (const auto started = decode_started(bytes); started && !decode_started(encode(*started))) std::abort();
  if (const auto exit = decode_exit(bytes); exit && !decode_exit(encode(*exit))) std::abort();
  if (const auto output = decode_output(bytes); output && !decode_output(encode(*output))) std::abort();
  static_cast<void>(decode_signal(bytes));
  return 0;
}
