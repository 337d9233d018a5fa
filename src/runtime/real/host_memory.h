// Shared memory of real processes: one anonymous file for each, which the others open through /proc.
//
// The file has no name (memfd_create), so nothing is left behind however the processes end, and it does not count against the
// size of /dev/shm. It only grows: each allocation gets bytes at its end, which nobody gets again after it was freed (freeing gives
// the memory back, and leaves a hole). So it can be sealed against shrinking, and no peer that maps it can be killed by SIGBUS
// because of what its owner does. Memory is reserved when it is given out: where there is not enough one hears so then.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/shared_memory.h"

namespace poseidon::runtime::real {

// Equal where two processes can open each other's files under /proc: on one running kernel, in one name space of processes, as one
// user. Empty where that cannot be known.
std::string machine_identity();

class HostMemory final : public SharedMemory {
 public:
  static Result<std::unique_ptr<HostMemory>> create();
  ~HostMemory() override;

  // How others find the file: its number in this process, and its inode, by which they see that they have the right one.
  std::string address() const;
  // The others of this host. Before map(); may be said again, of others too. kCorruptFrame: an address is none.
  struct Peer {
    Member member{0};
    std::int64_t pid = 0;
    std::string address;
  };
  Status set_peers(const std::vector<Peer>& peers);

  Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes) override;
  std::optional<wire::HostPlace> place_of(const std::byte* data, std::size_t bytes) const override;
  Result<std::shared_ptr<std::byte>> map(Member owner, const wire::HostPlace& place) override;

 private:
  class Segment;
  struct OpenPeer {
    std::string path;         // "/proc/4711/fd/5"
    std::uint64_t inode = 0;
    int descriptor = -1;      // -1: not opened yet
  };
  explicit HostMemory(std::shared_ptr<Segment> segment);

  std::shared_ptr<Segment> segment_;    // what was given out keeps it alive
  std::map<Member, OpenPeer> peers_;    // lane only
};

}  // namespace poseidon::runtime::real
