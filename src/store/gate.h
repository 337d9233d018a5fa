// Which chunks may be pushed to this server while its staging memory is short.
//
// The gate is open as long as less than a watermark is staged, and then nothing is said and nobody waits. Above it the gate
// closes: the workers may push only those chunks that are named to them. Named, "admitted", are
//   - the lowest unfinished chunk, always, over the cap if need be: in the order of iterations, then of the layers' places in
//     the forward pass (whatever the priorities), then of tensors and bytes;
//   - of the chunks of which something is staged already one, always, likewise: the lowest unfinished one may be of a tensor that
//     the workers hand in only after others have gone through iterations;
//   - more of those, lowest first, and then the others of the lowest chunk's iteration and layer, as long as all that the admitted
//     chunks may still bring has room beside what is staged.
// When little enough is staged the gate opens again. docs/decisions/0016-a-gate-before-the-staging-memory.md shows that no cycle of
// waits can exist, whatever the order in which workers send, and how much may be staged at most.
//
// Pure accounting: knows no memory, no clock and no link. Lane only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "poseidon/types.h"
#include "wire/gate.h"

namespace poseidon::store {

// A server stages at most (P - 1) / P of the model's dense bytes, when a worker is late for a whole iteration. So for a model
// of up to 250 million float32 parameters no gate ever closes; a larger one may cost a node as much memory as that.
constexpr std::size_t kStagingBytesMax = 1'000'000'000;

// At most max(cap, cap / 2 + crossing) + 2 * others * bytes of the largest chunk can be staged.
struct GateOptions {
  std::size_t staging_bytes_max = kStagingBytesMax;  // the cap; 0 is allowed: one chunk after the other
  // Payload that may be on its way when the gate closes, of all workers together.
  std::size_t crossing_bytes_max = 0;
  std::size_t others = 0;  // workers that push over a link
};

struct GateChunk {
  TensorId tensor{0};
  std::uint64_t offset = 0;  // in the tensor, bytes
  std::size_t bytes = 0;
  std::uint32_t layer = 0;   // its place in the forward pass
};

class Gate {
 public:
  // Says something to all other workers.
  using TellFn = std::function<void(const wire::GateNews& news)>;
  // The server's own chunks, in the order of the forward pass; below, a chunk is its index here. `tell` may be empty where there
  // are no others.
  Gate(GateOptions options, std::vector<GateChunk> chunks, TellFn tell);

  // Somebody, perhaps this member's own worker, has begun with a chunk's contributions for an iteration.
  void opened(std::size_t chunk, Iteration iteration);
  // So many bytes of another worker's contribution have been given staging memory.
  void staged(std::size_t chunk, std::size_t bytes);
  // Another worker has no contribution to the chunk.
  void absent(std::size_t chunk);
  // A sum was made of so many staged bytes, and it may have been the last one of the chunk for this iteration.
  void summed(std::size_t chunk, std::size_t staged_bytes, bool finished);

  bool is_open() const { return !closed_; }
  std::size_t bytes_staged() const { return staged_; }
  // While the gate is closed: the chunk that is admitted whatever is staged.
  std::size_t lowest_unfinished() const { return unfinished_.begin()->second; }
  std::size_t chunks() const { return chunks_.size(); }
  const GateChunk& chunk(std::size_t index) const { return chunks_[index]; }
  // For which iteration the chunk is waited for.
  Iteration iteration_of(std::size_t index) const { return states_[index].iteration; }

 private:
  // Of the present iteration of a chunk.
  struct State {
    std::uint64_t round = 0;     // how many sums are finished: orders the chunks, however the caller numbers its iterations
    Iteration iteration = 0;     // of the next sum; a guess until opened() says it
    std::size_t to_come = 0;     // bytes of others that are neither staged yet nor absent
    bool begun = false;          // something has been staged
    bool admitted = false;       // only while the gate is closed
  };
  // Smaller is lower.
  using Key = std::pair<std::uint64_t, std::size_t>;  // round, chunk
  Key key(std::size_t chunk) const { return {states_[chunk].round, chunk}; }

  void close();
  void open();
  // Opens the gate where little enough is staged, else admits what may be.
  void advance();
  // What is to come of these; chunks of which all is staged need no words.
  std::vector<wire::ChunkName> admit_more();
  bool has_room_for(std::size_t chunk) const;
  void admit(std::size_t chunk, std::vector<wire::ChunkName>& names);
  wire::ChunkName name(std::size_t chunk) const;
  // In one frame at least: that the gate is closed.
  void tell_admitted(const std::vector<wire::ChunkName>& names);

  std::vector<GateChunk> chunks_;
  TellFn tell_;
  std::size_t others_;
  std::size_t room_;         // for what is staged and what the admitted may bring
  std::size_t watermark_;    // the gate closes above it
  std::size_t low_mark_;     // and opens again at it
  std::vector<State> states_;  // by chunk
  bool numbered_ = false;    // an iteration's number has been heard
  std::size_t staged_ = 0;
  bool closed_ = false;
  std::uint64_t closings_ = 0;
  // While the gate is closed:
  std::size_t expected_ = 0;    // what the admitted chunks may still bring
  std::size_t under_way_ = 0;   // admitted chunks of which something is staged
  std::set<Key> unfinished_;    // all chunks
  std::set<Key> begun_;         // of which something is staged, but which are not admitted
};

}  // namespace poseidon::store
