// Shared memory in virtual time, where all members live in one process: a place is an address.
#pragma once

#include <map>
#include <memory>

#include "runtime/shared_memory.h"

namespace poseidon::runtime::sim {

// What the members of one simulated host see of each other.
class SimHost {
 public:
  struct Member {
    std::map<const std::byte*, std::size_t> given;  // begin and bytes of what has not been freed
  };
  std::map<poseidon::Member, std::shared_ptr<Member>> members;
};

class SimMemory final : public SharedMemory {
 public:
  // `host` outlives this.
  SimMemory(SimHost& host, poseidon::Member self);

  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes) override;
  std::optional<wire::HostPlace> place_of(const std::byte* data, std::size_t bytes) const override;
  // Only what the owner has given out.
  Result<std::shared_ptr<std::byte>> map(poseidon::Member owner, const wire::HostPlace& place) override;

 private:
  SimHost& host_;
  std::shared_ptr<SimHost::Member> own_;
};

}  // namespace poseidon::runtime::sim
