// Memory that travels: where the bytes of a message come from, or go to.
//
// The packed bytes of a message (a chunk of a gradient, the columns of a factor that one owner needs) often lie strided in a
// larger array. A Layout says where, so that senders gather straight from the array and receivers scatter straight into it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "poseidon/types.h"

namespace poseidon::runtime {

// A piece of memory as a transport knows it. `data` null with bytes > 0 is size-only: nothing is read or written there.
struct Region {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  Device device;
  std::uint64_t key = 0;  // what Transport::register_memory gave; 0 for plain memory

  static Region of(const TensorView& view) { return {view.data, view.bytes, view.device, 0}; }
};

// Consecutive bytes in a region.
struct Slice {
  Region region;
  std::size_t offset = 0;
  std::size_t bytes = 0;

  std::byte* data() const { return region.data == nullptr ? nullptr : region.data + offset; }
};

// `rows` runs of `row_bytes` bytes, `stride` bytes from one start to the next.
struct Strided {
  Region region;
  std::size_t offset = 0;
  std::size_t row_bytes = 0;
  std::size_t rows = 1;
  std::size_t stride = 0;

  std::size_t bytes() const { return rows * row_bytes; }
};

// At most two strided blocks, one packed after the other (U's columns, then V's).
class Layout {
 public:
  Layout() = default;
  static Layout contiguous(const Region& region, std::size_t offset, std::size_t bytes);
  static Layout strided(const Strided& block);
  // The two, `first` in front.
  static Layout pair(const Strided& first, const Strided& second);

  std::size_t bytes() const;
  // Appends the slices that hold the packed bytes [begin, end), in order; none for size-only memory.
  void slices(std::size_t begin, std::size_t end, std::vector<Slice>& out) const;

 private:
  std::array<Strided, 2> blocks_{};
  std::size_t count_ = 0;
};

// Both copy as many bytes as the slices hold; size-only slices are passed over.
void gather(const std::vector<Slice>& from, std::byte* to);
void scatter(const std::byte* from, const std::vector<Slice>& to);

}  // namespace poseidon::runtime
