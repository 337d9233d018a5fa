#include "store/staging.h"

#include <algorithm>

#include "base/check.h"

namespace poseidon::store {

std::byte* StagingPool::acquire(std::size_t bytes) {
  std::vector<base::AlignedBytes>& spare = spare_[bytes];
  base::AlignedBytes block;
  if (spare.empty()) {
    block = base::make_aligned(bytes);
  } else {
    block = std::move(spare.back());
    spare.pop_back();
  }
  std::byte* const data = block.get();
  used_.emplace(data, std::move(block));
  in_use_ += bytes;
  in_use_max_ = std::max(in_use_max_, in_use_);
  return data;
}

void StagingPool::release(std::byte* block, std::size_t bytes) {
  const auto found = used_.find(block);
  POSEIDON_CHECK(found != used_.end(), "a block that is not of this pool");
  spare_[bytes].push_back(std::move(found->second));
  used_.erase(found);
  in_use_ -= bytes;
}

}  // namespace poseidon::store
