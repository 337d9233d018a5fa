// How many seeds a test tries, and which.
//
//   POSEIDON_SWARM_SCALE=0.05   a twentieth of the usual number (under sanitizers), or 20 for a night's run
//   POSEIDON_SWARM_SEED=1234    only this one, to see it again
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace poseidon::test {

// 1, 2, 3, ... as many as the environment makes of `usual`.
inline std::vector<std::uint64_t> seeds(std::uint64_t usual) {
  if (const char* const one = std::getenv("POSEIDON_SWARM_SEED")) return {std::strtoull(one, nullptr, 10)};
  const char* const scale = std::getenv("POSEIDON_SWARM_SCALE");
  const double count = static_cast<double>(usual) * (scale != nullptr ? std::strtod(scale, nullptr) : 1.0);
  std::vector<std::uint64_t> list;
  for (std::uint64_t seed = 1; seed == 1 || static_cast<double>(seed) <= count; ++seed) list.push_back(seed);
  return list;
}

// To print with a failure: how to see it again.
inline std::string replay(std::uint64_t seed) { return "POSEIDON_SWARM_SEED=" + std::to_string(seed) + " repeats this"; }

}  // namespace poseidon::test
