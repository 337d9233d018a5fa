// The server side of bulk-synchronous training: sums the workers' dense gradients of the chunks that this member owns.
//
// A chunk's sum for one iteration is built in a slot, piece by piece. Contributions are staged until every worker's is there;
// then one pass adds them in the order of ranks, whatever order they came in, so the sum is the same in every bit. The piece
// goes out to all workers straight from the slot. The worker of this same process, where there is one (a dedicated server has
// none), takes no socket: its gradient is read, and receives the sum, where it lies.
//
// Two slots for each chunk are enough: nobody pushes iteration i+1 of a tensor before it has the sum of iteration i, so by
// the time anyone pushes i+2 all sums of i have been received.
//
// Staging memory has a cap: near it the store asks for some chunks only (store/gate.h). Factor exchanges (factor/) are no part of
// that: their two sets of buffers for each peer have a size that is known before.
//
// Lane only. Knows nothing of optimisers: the engine's servers sum, and every worker steps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "plan/partition.h"
#include "poseidon/session.h"
#include "runtime/compute.h"
#include "runtime/outbox.h"
#include "runtime/runtime.h"
#include "store/gate.h"
#include "store/staging.h"

namespace poseidon::store {

struct BspStoreOptions {
  Rank self{0};                                  // a node: from members.size() on a dedicated server
  std::vector<Member> members;                   // the workers, by rank
  const Model* model = nullptr;                  // outlives the store
  std::vector<std::uint32_t> layer_of;           // by tensor: its place in the forward pass
  const std::vector<std::vector<plan::Chunk>>* chunks = nullptr;  // by tensor; outlives the store
  bool serves_only() const { return static_cast<std::size_t>(index(self)) >= members.size(); }  // trains nothing itself
  bool size_only = false;                        // no contents are kept or summed; all views must be size-only
  std::size_t staging_bytes_max = kStagingBytesMax;
  std::size_t crossing_bytes_max = 0;            // see GateOptions
  Gate::TellFn tell;                             // what all other members must hear of the gate; empty: nobody
  std::vector<Rank> leaders = {};                // where nodes are hosts: plan::node_name
};

// A piece of a tensor's sum is in the local gradient: bytes [begin, end). With no contributors the memory is untouched.
struct PieceSum {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::uint32_t contributors = 0;
  std::uint64_t samples = 0;
};
using PieceSumFn = std::function<void(const PieceSum& piece)>;

// The gradient of the worker in this process, for one chunk.
struct LocalPush {
  std::byte* tensor = nullptr;  // of the whole tensor
  bool present = true;          // false: it has none, but wants the others' sum
  std::uint32_t samples = 1;
  PieceSumFn on_sum;
  std::uint32_t contributors = 1;  // workers whose sum it is already
};

class BspStore {
 public:
  BspStore(runtime::Runtime& runtime, runtime::Compute& compute, runtime::Outbox& outbox, BspStoreOptions options);
  ~BspStore();

  // `chunk` is an index into options.chunks[tensor], of one that this member owns. The memory is borrowed until the last
  // on_sum for the chunk.
  void push_local(TensorId tensor, std::size_t chunk, Iteration iteration, LocalPush push);
  // The memory for a peer's contribution, or kCorruptFrame where the plan has no place for it.
  Result<runtime::Sink> accept_push(Member from, const wire::PartHeader& part);

  // Whom unfinished sums older than `age` wait for: one sentence a tensor, at most `count`.
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const;
  // The most that was staged.
  std::size_t staging_bytes_max() const { return staging_.bytes_in_use_max(); }

 private:
  struct Piece {
    std::vector<std::byte*> staged;  // by rank: owned by the pool; null for the local worker and the absent. Empty: size-only
    std::vector<bool> arrived;       // by rank
    std::vector<bool> present;       // by rank
    std::uint32_t arrivals = 0;
    std::uint32_t contributors = 0;
    std::uint64_t samples = 0;
  };
  struct Slot {
    std::optional<Iteration> iteration;
    bool finished = false;
    std::size_t pieces_left = 0;
    runtime::Time opened{};
    std::vector<Piece> pieces;
    base::AlignedBytes sum;        // made on first use, kept
    std::optional<LocalPush> local;  // of the worker in this process
  };
  struct OwnedChunk {
    TensorId tensor{0};
    plan::Chunk range;
    std::size_t place = 0;  // among the chunks of the gate
    Slot slots[2];
  };

  std::size_t pieces_of(const OwnedChunk& chunk) const;
  std::size_t piece_begin(const OwnedChunk& chunk, std::size_t piece) const;
  std::size_t piece_end(const OwnedChunk& chunk, std::size_t piece) const;
  OwnedChunk* find(TensorId tensor, std::uint64_t offset);
  // The slot for the iteration, opened where it is new; null when its turn is over, or an older one's is not.
  Slot* slot(OwnedChunk& chunk, Iteration iteration);
  std::optional<std::size_t> rank_of(Member member) const;
  void arrive_push(OwnedChunk& chunk, Member from, const wire::PartHeader& part);
  void arrive(OwnedChunk& chunk, Slot& slot, std::size_t piece, std::size_t rank, std::byte* staged, bool present,
              std::uint32_t samples, std::uint32_t contributors);
  void sum(OwnedChunk& chunk, Slot& slot, std::size_t piece);
  void on_summed(OwnedChunk& chunk, Slot& slot, std::size_t piece, std::uint32_t contributors);
  void send_sum(const OwnedChunk& chunk, const Slot& slot, wire::PartHeader part, std::size_t begin, std::size_t end);
  void tell(const wire::GateNews& news);
  // The ranks whose contributions have not all come.
  std::vector<std::string> missing(const Slot& slot) const;
  // Whom the lowest unfinished chunk waits for, while the gate is closed.
  std::string name_of(Rank node) const;
  std::optional<std::string> overdue_at_the_gate(runtime::Duration age) const;

  runtime::Runtime& runtime_;
  runtime::Compute& compute_;
  runtime::Outbox& outbox_;
  BspStoreOptions options_;
  StagingPool staging_;
  Gate gate_;
  std::optional<runtime::Time> gate_closed_;  // since when; nothing while it is open
  std::vector<std::vector<std::unique_ptr<OwnedChunk>>> owned_;  // by tensor; in order of bytes
  // A sum may be finished after this is gone; it looks here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::store
