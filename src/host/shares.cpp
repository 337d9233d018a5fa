#include "host/shares.h"

#include <algorithm>

namespace poseidon::host {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kLeast = 64 * 1024;

Range part(std::size_t whole, std::size_t each, std::size_t number) {
  const std::size_t begin = std::min(whole, number * each);
  return {begin, std::min(whole, begin + each)};
}

}  // namespace

Range share_of_bytes(std::size_t bytes, std::size_t members, std::size_t place, std::size_t rotation) {
  const std::size_t pages = (bytes + members * kPage - 1) / (members * kPage);
  return part(bytes, std::max(kLeast, pages * kPage), (place + members - rotation % members) % members);
}

Range share_of_rows(std::size_t rows, std::size_t members, std::size_t place) {
  return part(rows, (rows + members - 1) / members, place);
}

}  // namespace poseidon::host
