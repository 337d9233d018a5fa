// Memory for contributions that wait for the others' before they can be summed.
//
// Blocks are kept for the next use, since the same sizes come again in every iteration. A block carries its own bookkeeping in
// the cache line before it, and spare ones of a size form a list through theirs: a piece is taken and given back in a few
// instructions, millions of times in a job, without a look-up.
//
// Lane only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "wire/frame.h"

namespace poseidon::store {

struct StagingPoolOptions {
  std::size_t block_bytes_max = wire::kPieceBytes;  // contributions come in pieces
  // Beyond this many bytes blocks that come back are not kept. The pool never refuses a block, since what is under way must land
  // somewhere: what may get under way is the gate's affair (store/gate.h).
  std::size_t bytes_max = SIZE_MAX;
};

class StagingPool {
 public:
  explicit StagingPool(StagingPoolOptions options = {});
  // Frees all blocks, also those that were not released.
  ~StagingPool();
  StagingPool(const StagingPool&) = delete;
  StagingPool& operator=(const StagingPool&) = delete;

  // Cache-line aligned, not initialised; the caller's until release(). At most block_bytes_max.
  std::byte* acquire(std::size_t bytes);
  void release(std::byte* block);

  std::size_t bytes_in_use() const { return in_use_; }
  std::size_t bytes_in_use_max() const { return in_use_max_; }
  // Kept for the next use.
  std::size_t bytes_spare() const { return spare_bytes_; }

 private:
  // In the cache line before its block.
  struct Block {
    StagingPool* pool;  // so that a block of something else is noticed
    Block* previous;    // of all blocks of the pool
    Block* next;
    Block* next_spare;  // of its size; meaningless in use
    std::size_t bytes;  // asked for by its user; 0 while it is spare
  };
  // Sizes are rounded up to cache lines, and each has its list: the index is the number of lines.
  static std::size_t lines_of(std::size_t bytes);
  static std::byte* data_of(Block* block);
  Block* make(std::size_t lines);
  void free(Block* block);
  // Frees spare blocks, the largest first, until what is held is within bytes_max or none is left.
  void free_spares();

  StagingPoolOptions options_;
  std::vector<Block*> spares_;  // by lines: the first of the list
  Block* blocks_ = nullptr;     // all
  std::size_t in_use_ = 0;
  std::size_t in_use_max_ = 0;
  std::size_t spare_bytes_ = 0;
};

}  // namespace poseidon::store
