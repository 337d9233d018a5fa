#include "runtime/real/cores.h"

#include <sched.h>

#include <algorithm>

namespace poseidon::runtime::real {

std::vector<int> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

int core_for_lane(const std::vector<int>& allowed, LocalPlace place, std::size_t lane) {
  const std::size_t begin = allowed.size() * place.rank / place.size;
  const std::size_t end = std::max(begin + 1, allowed.size() * (place.rank + 1) / place.size);
  return allowed[end - 1 - lane % (end - begin)];
}

}  // namespace poseidon::runtime::real
