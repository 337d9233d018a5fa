#include "apps/poseidon/large_pages.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace poseidon::app {
namespace {

constexpr std::uintptr_t kLargePageBytes = std::uintptr_t{2} << 20;
// The heap grows by so much at once: addresses, which cost nothing until they are used. An int must hold it.
constexpr int kHeapBytes = static_cast<int>((std::uintptr_t{2} << 30) - kLargePageBytes);
// The most that malloc takes for this.
constexpr int kOwnMappingBytesMin = 32 << 20;

}  // namespace

void use_large_pages() {
  ::mallopt(M_MMAP_THRESHOLD, kOwnMappingBytesMin);
  ::mallopt(M_TOP_PAD, kHeapBytes);
  // More than the heap has left, so that it grows now.
  void* volatile first = std::malloc(kLargePageBytes);
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(first) + kLargePageBytes - 1) / kLargePageBytes * kLargePageBytes;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(::sbrk(0));
  std::free(first);
  // Where the heap could not grow the block lies elsewhere, and there is nothing to advise about.
  if (begin < end && end - begin <= std::uintptr_t{kHeapBytes} + 2 * kLargePageBytes) {
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
}

}  // namespace poseidon::app
