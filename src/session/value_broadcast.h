// Rank 0's values of all tensors, into everybody else's memory.
//
// A tensor of some size is cut into a slice for each of the others: rank 0 sends each its slice, and who has received its own passes it
// on to the rest. Every link then carries each value about once, where N - 1 copies would leave rank 0's if it sent them all (scatter and
// all-gather, as in van de Geijn's broadcast for long messages). Large tensors go in blocks, so that slices are passed on while later
// ones come. A small tensor is sent to everybody by rank 0.
//
// Lane only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "poseidon/types.h"
#include "runtime/outbox.h"
#include "runtime/transport.h"

namespace poseidon::session {

class ValueBroadcast : public std::enable_shared_from_this<ValueBroadcast> {
 public:
  // `workers` by rank. References outlive all sends and receipts, or the last shared_ptr to this.
  ValueBroadcast(runtime::Transport& transport, runtime::Outbox& outbox, std::vector<Member> workers, Rank self);

  // Views are borrowed until `done`, which runs once all has come, and has left where it is to be passed on. One without bytes is left
  // out. `places`, by tensor: lower ones leave first.
  void start(const std::vector<TensorView>& values, const std::vector<std::uint32_t>& places, std::function<void()> done);

 private:
  // The bytes [begin, end) of a tensor.
  struct Range {
    TensorId tensor{0};
    std::uint32_t place = 0;
    runtime::Region memory;  // of the whole tensor
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  // Where the slice of a range for rank `rank` (1 and up) begins; the last ends where that of rank N would begin.
  std::size_t slice_begin(const Range& range, std::size_t rank) const;
  Range slice(const Range& range, std::size_t rank) const;
  void spread(const Range& range);
  void send(std::size_t to, const Range& range);
  void expect(std::size_t from, const Range& range, std::function<void()> on_come);
  void one_done();

  runtime::Transport& transport_;
  runtime::Outbox& outbox_;
  const std::vector<Member> workers_;
  const std::size_t self_;
  std::size_t left_ = 0;  // messages on their way, and one for start() itself
  std::function<void()> done_;
};

}  // namespace poseidon::session
