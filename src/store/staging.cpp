#include "store/staging.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/aligned.h"
#include "base/check.h"

namespace poseidon::store {

using base::kCacheLine;

StagingPool::StagingPool(StagingPoolOptions options)
    : options_(options), spares_(lines_of(options.block_bytes_max) + 1, nullptr) {
  static_assert(sizeof(Block) <= kCacheLine);
}

StagingPool::~StagingPool() {
  while (blocks_ != nullptr) free(blocks_);
}

std::size_t StagingPool::lines_of(std::size_t bytes) { return std::max<std::size_t>(1, (bytes + kCacheLine - 1) / kCacheLine); }

std::byte* StagingPool::data_of(Block* block) { return reinterpret_cast<std::byte*>(block) + kCacheLine; }

StagingPool::Block* StagingPool::make(std::size_t lines) {
  base::AlignedBytes memory = base::make_aligned((1 + lines) * kCacheLine);
  Block* const block = new (memory.release()) Block{this, nullptr, blocks_, nullptr, 0};
  if (blocks_ != nullptr) blocks_->previous = block;
  blocks_ = block;
  return block;
}

void StagingPool::free(Block* block) {
  (block->previous != nullptr ? block->previous->next : blocks_) = block->next;
  if (block->next != nullptr) block->next->previous = block->previous;
  base::AlignedDelete()(reinterpret_cast<std::byte*>(block));
}

std::byte* StagingPool::acquire(std::size_t bytes) {
  POSEIDON_CHECK(bytes > 0 && bytes <= options_.block_bytes_max, "a block of ", bytes, " bytes");
  const std::size_t lines = lines_of(bytes);
  Block* block = spares_[lines];
  in_use_ += bytes;
  in_use_max_ = std::max(in_use_max_, in_use_);
  if (block != nullptr) {
    spares_[lines] = block->next_spare;
    spare_bytes_ -= lines * kCacheLine;
  } else {
    free_spares();
    block = make(lines);
  }
  block->bytes = bytes;
  return data_of(block);
}

void StagingPool::release(std::byte* data) {
  Block* const block = reinterpret_cast<Block*>(data - kCacheLine);
  POSEIDON_CHECK(block->pool == this && block->bytes > 0, "a block that is not in use here, or not of this pool");
  const std::size_t lines = lines_of(block->bytes);
  in_use_ -= std::exchange(block->bytes, 0);
  block->next_spare = std::exchange(spares_[lines], block);
  spare_bytes_ += lines * kCacheLine;
  free_spares();
}

void StagingPool::free_spares() {
  if (in_use_ + spare_bytes_ <= options_.bytes_max) return;
  for (std::size_t lines = spares_.size(); --lines > 0;) {
    while (spares_[lines] != nullptr && in_use_ + spare_bytes_ > options_.bytes_max) {
      Block* const block = spares_[lines];
      spares_[lines] = block->next_spare;
      spare_bytes_ -= lines * kCacheLine;
      free(block);
    }
  }
}

}  // namespace poseidon::store
