// Host memory on cache-line boundaries: for vector loads, and because some products of matrices depend in their last bits on
// how their operands are aligned, which must not differ from run to run.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace poseidon::base {

constexpr std::size_t kCacheLine = 64;

struct AlignedDelete {
  void operator()(std::byte* block) const { ::operator delete(block, std::align_val_t{kCacheLine}); }
};
using AlignedBytes = std::unique_ptr<std::byte, AlignedDelete>;

// Not initialised. Throws std::bad_alloc.
inline AlignedBytes make_aligned(std::size_t bytes) {
  return AlignedBytes(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{kCacheLine})));
}

}  // namespace poseidon::base
