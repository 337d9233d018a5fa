#include "host/group.h"

#include <algorithm>
#include <cstring>

namespace poseidon::host {

Group::Group(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute, runtime::SharedMemory& memory,
             GroupOptions options)
    : runtime_(runtime), transport_(transport), compute_(compute), memory_(memory), options_(std::move(options)), work_(runtime) {}

std::size_t Group::place_of(Member member) const {
  return static_cast<std::size_t>(std::find(options_.members.begin(), options_.members.end(), member) - options_.members.begin());
}

void Group::send(std::size_t to, const wire::HostMessage& message) {
  const auto body = std::make_shared<std::array<std::byte, wire::kHostMessageBytes>>(wire::encode_host_message(message));
  runtime::Frame frame;
  frame.parts.push_back({.type = wire::FrameType::kHost, .bytes = static_cast<std::uint32_t>(body->size())});
  frame.payload.push_back({{body->data(), body->size(), {}, 0}, 0, body->size()});
  transport_.send({options_.members[to], runtime::Lane{0}}, std::move(frame), [body] {});
}

void Group::send_to_others(const wire::HostMessage& message) {
  for (std::size_t step = 1; step < size(); ++step) send((options_.self + step) % size(), message);
}

Result<Group::Offer> Group::offer(std::byte* data, std::size_t bytes, std::shared_ptr<std::byte>& slot) {
  if (const auto place = memory_.place_of(data, bytes)) return Offer{data, *place};
  if (!slot) {
    Result<std::shared_ptr<std::byte>> made = memory_.allocate(bytes);
    if (!made) return made.error();
    slot = std::move(*made);
  }
  return Offer{slot.get(), memory_.place_of(slot.get(), bytes).value()};
}

Result<std::shared_ptr<std::byte>> Group::map(std::size_t owner, const wire::HostPlace& place) {
  return memory_.map(options_.members[owner], place);
}

void Group::copy(const runtime::Priority& priority, const std::byte* from, std::byte* to, std::size_t bytes,
                 std::function<void()> done) {
  work_.add({.priority = priority,
             .count = from == to ? 0 : bytes,
             .per_piece = wire::kPieceBytes,
             .piece =
                 [from, to](std::size_t begin, std::size_t end, const std::function<void()>& then) {
                   std::memcpy(to + begin, from + begin, end - begin);
                   then();
                 },
             .done = std::move(done)});
}

}  // namespace poseidon::host
