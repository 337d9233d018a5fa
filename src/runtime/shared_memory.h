// Memory that the processes of one host share, as the state machines see it.
//
// Each process gives out memory of its own segment; the others of its host can map what they are told the place of, and read and
// write it. Who may touch which bytes when is agreed by messages (host/): a byte that was written before a message was sent is
// seen by whoever has received it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "poseidon/error.h"
#include "poseidon/types.h"
#include "wire/host_message.h"

namespace poseidon::runtime {

class SharedMemory {
 public:
  virtual ~SharedMemory() = default;

  // Zeroed memory on page boundaries. May be called from any thread, and what it gives may outlive this. kSystem: there is not so
  // much.
  virtual Result<std::shared_ptr<std::byte>> allocate(std::size_t bytes) = 0;
  // Where this memory lies in the segment; nothing where it is not all of one allocation. May be called from any thread.
  virtual std::optional<wire::HostPlace> place_of(const std::byte* data, std::size_t bytes) const = 0;

  // Another process's memory, mapped as long as the pointer is kept; also after the owner has given it back, or has died. On the
  // lane. kCorruptFrame: it has no such place. kSystem: it cannot be mapped.
  virtual Result<std::shared_ptr<std::byte>> map(Member owner, const wire::HostPlace& place) = 0;
};

}  // namespace poseidon::runtime
