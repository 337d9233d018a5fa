#include "wire/gate.h"

#include "base/check.h"
#include "base/text.h"
#include "wire/little_endian.h"

namespace poseidon::wire {
namespace {

constexpr std::uint32_t kClosed = 0;
constexpr std::uint32_t kOpen = 1;

Error corrupt(std::string reason) { return Error{ErrorCode::kCorruptFrame, std::move(reason)}; }

}  // namespace

std::vector<std::byte> encode_gate(const GateNews& news) {
  POSEIDON_CHECK(news.admitted.size() <= kAdmittedMax, news.admitted.size(), " chunks in one frame");
  std::vector<std::byte> body(kGateHeadBytes + news.admitted.size() * kChunkNameBytes);
  Writer out(body.data());
  out.put(news.closing).put(news.open ? kOpen : kClosed).put(static_cast<std::uint32_t>(news.admitted.size()));
  for (const ChunkName& chunk : news.admitted) {
    out.put(index(chunk.tensor)).put(chunk.offset).put(std::uint64_t{chunk.iteration});
  }
  return body;
}

Result<GateNews> decode_gate(std::span<const std::byte> body) {
  if (body.size() < kGateHeadBytes) {
    return corrupt(base::concat("a word of a gate has at least ", kGateHeadBytes, " bytes, this one has ", body.size()));
  }
  Reader in(body.data());
  GateNews news;
  news.closing = in.take<std::uint64_t>();
  const auto state = in.take<std::uint32_t>();
  const auto count = in.take<std::uint32_t>();
  if (news.closing == 0) return corrupt("closings of a gate are counted from 1");
  if (state != kClosed && state != kOpen) return corrupt(base::concat("a gate of unknown state ", state));
  news.open = state == kOpen;
  if (news.open && count > 0) return corrupt("an open gate names chunks");
  if (count > kAdmittedMax || body.size() != kGateHeadBytes + count * kChunkNameBytes) {
    return corrupt(base::concat("a word of a gate announces ", count, " chunks in ", body.size(), " bytes"));
  }
  news.admitted.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    ChunkName chunk;
    chunk.tensor = TensorId{in.take<std::uint32_t>()};
    chunk.offset = in.take<std::uint64_t>();
    chunk.iteration = in.take<std::uint64_t>();
    news.admitted.push_back(chunk);
  }
  return news;
}

}  // namespace poseidon::wire
