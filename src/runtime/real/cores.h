// Which core a lane's thread should run on, where lanes are pinned.
#pragma once

#include <cstddef>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::runtime::real {

// The cores that this process may run on, ascending (sched_getaffinity).
std::vector<int> allowed_cores();

// This process among those of its host that share its cores.
struct LocalPlace {
  std::size_t rank = 0;  // below size
  std::size_t size = 1;
};

// The processes of a host share the allowed cores out evenly, and lane l has its process's l-th core from the end: the first ones
// are left to the threads that compute. Where there are fewer cores than lanes some share one. `allowed` is not empty.
int core_for_lane(const std::vector<int>& allowed, LocalPlace place, std::size_t lane);

}  // namespace poseidon::runtime::real
