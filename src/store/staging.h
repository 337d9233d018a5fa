// Memory for contributions that wait for the others' before they can be summed.
//
// Blocks are kept for the next use, since the same sizes come again in every iteration. Lane only.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "base/aligned.h"

namespace poseidon::store {

class StagingPool {
 public:
  // Cache-line aligned; owned by the caller until release().
  std::byte* acquire(std::size_t bytes);
  void release(std::byte* block, std::size_t bytes);

  std::size_t bytes_in_use() const { return in_use_; }
  std::size_t bytes_in_use_max() const { return in_use_max_; }

 private:
  std::unordered_map<std::byte*, base::AlignedBytes> used_;
  std::unordered_map<std::size_t, std::vector<base::AlignedBytes>> spare_;  // by size
  std::size_t in_use_ = 0;
  std::size_t in_use_max_ = 0;
};

}  // namespace poseidon::store
