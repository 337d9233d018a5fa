#include "base/philox.h"

namespace poseidon::base {
namespace {

// FNV-1a over the purpose, then a finaliser (that of MurmurHash3) so that neighbouring seeds give unrelated keys.
std::uint64_t mixed(std::uint64_t seed, std::string_view purpose) {
  std::uint64_t hash = 0xCBF29CE484222325u ^ seed;
  for (const char c : purpose) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  hash ^= seed * 0x9E3779B97F4A7C15u;
  hash = (hash ^ (hash >> 33)) * 0xFF51AFD7ED558CCDu;
  hash = (hash ^ (hash >> 33)) * 0xC4CEB9FE1A85EC53u;
  return hash ^ (hash >> 33);
}

}  // namespace

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose) {
  const std::uint64_t key = mixed(seed, purpose);
  key_.words[0] = static_cast<std::uint32_t>(key);
  key_.words[1] = static_cast<std::uint32_t>(key >> 32);
}

}  // namespace poseidon::base
