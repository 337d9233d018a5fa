// Long work on memory (sums, copies), done in pieces on the lane, which serves its sockets and timers in between.
//
// The most urgent work goes on first, also when it came last: what the next forward pass wants first is added up first. Pieces
// are small enough to stay in a processor's cache, so numbers that were read for a sum are still there when the sum is written.
//
// Lane only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "runtime/outbox.h"
#include "runtime/runtime.h"

namespace poseidon::host {

struct Work {
  runtime::Priority priority;
  std::size_t count = 0;      // units (bytes, rows) of work in all
  std::size_t per_piece = 1;  // units that one piece takes
  // Does the units [begin, end), then calls `then`, possibly before it returns.
  std::function<void(std::size_t begin, std::size_t end, std::function<void()> then)> piece;
  std::function<void()> done;
};

class PieceQueue {
 public:
  // `runtime` outlives the queue.
  explicit PieceQueue(runtime::Runtime& runtime) : runtime_(runtime) {}
  ~PieceQueue() { *alive_ = false; }

  // `done` never runs before this returns.
  void add(Work work);
  // Drops what has not been done, without a word. The piece that is being done, if any, ends unnoticed.
  void clear() { works_.clear(); }

 private:
  struct Job {
    Work work;
    std::size_t begin = 0;  // of the next piece
  };
  using Key = std::pair<runtime::Priority, std::uint64_t>;

  void schedule();
  void turn();
  void on_piece(const Key& key, std::size_t end);

  runtime::Runtime& runtime_;
  std::map<Key, Job> works_;
  std::uint64_t next_sequence_ = 0;
  bool busy_ = false;       // a piece has begun and not ended
  bool scheduled_ = false;
  // Tasks on the lane may outlive this; they look here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::host
