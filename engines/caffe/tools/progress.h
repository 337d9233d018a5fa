// How the tools that take long tell where they are.
#pragma once

#include <cstddef>
#include <functional>

namespace poseidon::caffe {

struct Progress {
  std::size_t done = 0;
  std::size_t total = 0;  // 0: unknown
};

// Called now and then, in the thread that called the tool. What it throws ends the work, and what was written is
// removed.
using ProgressFn = std::function<void(Progress)>;

}  // namespace poseidon::caffe
