// The worker's side of one densely synchronised tensor: pushes its chunks to their servers and counts the sums that come back.
//
// Lane only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan/partition.h"
#include "poseidon/session.h"
#include "runtime/outbox.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"
#include "store/bsp_store.h"

namespace poseidon::session {

struct DenseSyncerOptions {
  Rank self{0};
  int workers = 1;
  std::span<const Member> members;      // by node: the workers, then the dedicated servers; outlives the syncer
  TensorId tensor{0};
  std::string name;
  std::uint32_t layer = 0;          // its place in the forward pass
  std::size_t bytes = 0;                // of the whole tensor
  std::span<const plan::Chunk> chunks;  // in order of bytes; with several lanes only this one's; outlives the syncer
  std::vector<Rank> leaders = {};       // plan::node_name
};

class DenseSyncer {
 public:
  // `store` is this member's own shard. All outlive the syncer.
  DenseSyncer(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Outbox& outbox, store::BspStore& store,
              DenseSyncerOptions options);

  // `present` false: submit_absent. The gradient's memory is borrowed until on_synced.
  void submit(Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced);

  bool waiting() const { return pending_.has_value(); }
  // Ends the wait with an error: the job is over.
  void fail(const Error& error);
  // Whom a wait of more than `age` is for.
  std::optional<std::string> overdue(runtime::Duration age) const;
  runtime::Duration waited() const { return pending_ ? runtime_.now() - pending_->since : runtime::Duration{0}; }

 private:
  std::string name_of(Rank node) const;
  struct Pending {
    Iteration iteration = 0;
    SyncedFn on_synced;
    std::size_t bytes_left = 0;
    std::vector<std::size_t> bytes_to_come;  // by chunk: of which not even the header has come
    std::uint32_t contributors = 0;
    std::uint64_t samples = 0;
    runtime::Time since{};
    runtime::SinkId sink{0};  // for all servers' parts of the sum
  };
  void push(const plan::Chunk& chunk, Iteration iteration, const DenseGradient& gradient, bool present);
  // The place in options_.chunks of the chunk that holds the byte; their number where there is none.
  std::size_t chunk_at(std::uint64_t offset) const;
  // Is the part one of its chunk's server, and not more than what is to come?
  bool admit(Member from, const wire::PartHeader& part);
  void arrived(std::size_t bytes, std::uint32_t contributors, std::uint64_t samples);

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  runtime::Outbox& outbox_;
  store::BspStore& store_;
  DenseSyncerOptions options_;
  std::vector<std::uint32_t> order_;  // of pushing: places in options_.chunks
  std::optional<Pending> pending_;
};

}  // namespace poseidon::session
