#include "runtime/sim/sim_memory.h"

#include <cstdint>
#include <cstring>

#include "base/aligned.h"
#include "base/text.h"

namespace poseidon::runtime::sim {
namespace {

bool holds(const std::map<const std::byte*, std::size_t>& given, const std::byte* data, std::uint64_t bytes) {
  const auto after = given.upper_bound(data);
  if (after == given.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  const auto inside = static_cast<std::uint64_t>(data - begin);
  return inside < size && bytes <= size - inside;
}

}  // namespace

SimMemory::SimMemory(SimHost& host, poseidon::Member self) : host_(host), own_(std::make_shared<SimHost::Member>()) {
  host_.members[self] = own_;
}

Result<std::shared_ptr<std::byte>> SimMemory::allocate(std::size_t bytes) {
  std::byte* const data = base::make_aligned(bytes).release();
  std::memset(data, 0, bytes);
  own_->given[data] = bytes;
  return std::shared_ptr<std::byte>(data, [own = own_](std::byte* block) {
    own->given.erase(block);
    base::AlignedDelete{}(block);
  });
}

std::optional<wire::HostPlace> SimMemory::place_of(const std::byte* data, std::size_t bytes) const {
  if (!holds(own_->given, data, bytes)) return std::nullopt;
  return wire::HostPlace{reinterpret_cast<std::uintptr_t>(data), bytes};
}

Result<std::shared_ptr<std::byte>> SimMemory::map(poseidon::Member owner, const wire::HostPlace& place) {
  std::byte* const data = reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(place.offset));
  const auto found = host_.members.find(owner);
  if (found == host_.members.end() || !holds(found->second->given, data, place.bytes)) {
    return Error{ErrorCode::kCorruptFrame, base::concat("member ", index(owner), " has no shared memory at ", place.offset)};
  }
  return std::shared_ptr<std::byte>(found->second, data);
}

}  // namespace poseidon::runtime::sim
