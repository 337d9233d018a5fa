// Random numbers as a pure function of a key and a counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011).
//
// A draw depends on what it is for (seed, layer, iteration, record) and on nothing else: not on which worker makes it, nor
// on how many draws came before. So P workers with b records each draw what one worker draws with P·b records.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace poseidon::base {

struct PhiloxKey {
  std::uint32_t words[2] = {0, 0};
};
using PhiloxCounter = std::array<std::uint32_t, 4>;

// Four random words of 32 bits for one counter. Inline, because dropout calls it for every fourth element.
inline PhiloxCounter philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key.words[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key.words[1], static_cast<std::uint32_t>(product0)};
    key.words[0] += 0x9E3779B9u;
    key.words[1] += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1), with 24 random bits: every value is exact in float32.
constexpr double uniform01(std::uint32_t word) { return (word >> 8) * (1.0 / 16777216.0); }

// Everything that one purpose draws: a stream of words, addressed by (major, minor, block).
//
// The 64-bit seed and the name of the purpose ("drop1", "conv1.weight") make the key; the counter is (block, minor, major),
// e.g. (every fourth element, record, iteration).
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view purpose);

  // `major` and `minor` count to 2^48 and 2^48 before they repeat; `block` to 2^32.
  PhiloxCounter words(std::uint64_t major, std::uint64_t minor, std::uint32_t block) const {
    return philox({block, static_cast<std::uint32_t>(minor), static_cast<std::uint32_t>(major),
                   static_cast<std::uint32_t>((minor >> 32) << 16) ^ static_cast<std::uint32_t>((major >> 32) & 0xFFFF)},
                  key_);
  }

 private:
  PhiloxKey key_;
};

}  // namespace poseidon::base
