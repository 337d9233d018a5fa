// Which member of a group adds up, or multiplies, which part. Pure functions: all members compute the same.
#pragma once

#include <cstddef>

namespace poseidon::host {

struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

// The bytes of a tensor that the member at `place` of `members` adds up: equal parts, whole pages, but at least 64 KiB, since for
// less a message costs more than the sum. `rotation` shifts the parts, so that small tensors do not all fall to the first member.
Range share_of_bytes(std::size_t bytes, std::size_t members, std::size_t place, std::size_t rotation);
// The rows of a matrix whose product it makes: equal parts.
Range share_of_rows(std::size_t rows, std::size_t members, std::size_t place);

}  // namespace poseidon::host
