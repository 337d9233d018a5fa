#include "runtime/memory.h"

#include <algorithm>
#include <cstring>

namespace poseidon::runtime {

Layout Layout::contiguous(const Region& region, std::size_t offset, std::size_t bytes) {
  return strided({.region = region, .offset = offset, .row_bytes = bytes, .rows = 1, .stride = bytes});
}

Layout Layout::strided(const Strided& block) {
  Layout layout;
  layout.blocks_[0] = block;
  layout.count_ = 1;
  return layout;
}

Layout Layout::pair(const Strided& first, const Strided& second) {
  Layout layout;
  layout.blocks_ = {first, second};
  layout.count_ = 2;
  return layout;
}

std::size_t Layout::bytes() const {
  std::size_t total = 0;
  for (std::size_t i = 0; i < count_; ++i) total += blocks_[i].bytes();
  return total;
}

void Layout::slices(std::size_t begin, std::size_t end, std::vector<Slice>& out) const {
  std::size_t block_begin = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const Strided& block = blocks_[i];
    const std::size_t block_end = block_begin + block.bytes();
    if (block.region.data == nullptr) {
      block_begin = block_end;
      continue;
    }
    std::size_t at = std::max(begin, block_begin);
    const std::size_t stop = std::min(end, block_end);
    const bool is_one_run = block.rows <= 1 || block.stride == block.row_bytes;
    while (at < stop) {
      const std::size_t inside = at - block_begin;
      if (is_one_run) {
        out.push_back({block.region, block.offset + inside, stop - at});
        break;
      }
      const std::size_t row = inside / block.row_bytes;
      const std::size_t column = inside % block.row_bytes;
      const std::size_t run = std::min(block.row_bytes - column, stop - at);
      out.push_back({block.region, block.offset + row * block.stride + column, run});
      at += run;
    }
    block_begin = block_end;
  }
}

void gather(const std::vector<Slice>& from, std::byte* to) {
  for (const Slice& slice : from) {
    if (slice.data() != nullptr) std::memcpy(to, slice.data(), slice.bytes);
    to += slice.bytes;
  }
}

void scatter(const std::byte* from, const std::vector<Slice>& to) {
  for (const Slice& slice : to) {
    if (slice.data() != nullptr) std::memcpy(slice.data(), from, slice.bytes);
    from += slice.bytes;
  }
}

}  // namespace poseidon::runtime
