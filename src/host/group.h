// The workers of one host, as one of them sees them: its place among them, messages to them, and the memory that all share.
//
// Lane only.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "host/piece_queue.h"
#include "poseidon/session.h"
#include "runtime/compute.h"
#include "runtime/runtime.h"
#include "runtime/shared_memory.h"
#include "runtime/transport.h"
#include "wire/host_message.h"

namespace poseidon::host {

struct GroupOptions {
  std::vector<Rank> ranks;      // in their order; the first leads
  std::vector<Member> members;  // likewise
  std::size_t self = 0;         // this worker's place
  bool alone = true;            // no other host takes part
};

class Group {
 public:
  // All outlive the group.
  Group(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Compute& compute, runtime::SharedMemory& memory,
        GroupOptions options);

  std::size_t size() const { return options_.members.size(); }
  std::size_t self() const { return options_.self; }
  bool leads() const { return options_.self == 0; }
  bool alone() const { return options_.alone; }
  Rank rank(std::size_t place) const { return options_.ranks[place]; }
  // The member's place; size() when it is not of this group.
  std::size_t place_of(Member member) const;

  void send(std::size_t to, const wire::HostMessage& message);
  void send_to_others(const wire::HostMessage& message);

  // Memory that the others can reach: `data` itself where allocate() gave it, else `slot`, which is made on first use.
  struct Offer {
    std::byte* data = nullptr;
    wire::HostPlace place;
  };
  Result<Offer> offer(std::byte* data, std::size_t bytes, std::shared_ptr<std::byte>& slot);
  Result<std::shared_ptr<std::byte>> map(std::size_t owner, const wire::HostPlace& place);

  // Adds to the queue a copy of `bytes` bytes; the memory is borrowed until `done`. Where the two are one, nothing is copied.
  void copy(const runtime::Priority& priority, const std::byte* from, std::byte* to, std::size_t bytes, std::function<void()> done);

  runtime::Runtime& runtime() { return runtime_; }
  runtime::Compute& compute() { return compute_; }
  runtime::SharedMemory& memory() { return memory_; }
  PieceQueue& work() { return work_; }

 private:
  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  runtime::Compute& compute_;
  runtime::SharedMemory& memory_;
  GroupOptions options_;
  PieceQueue work_;
};

}  // namespace poseidon::host
