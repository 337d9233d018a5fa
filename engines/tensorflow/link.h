// What the operators know of the job: the cluster that Python has joined, and how often each tensor has been summed.
//
// Python joins, renews and leaves (python/poseidon/_library.py); operators only submit. A tensor counts its own iterations, so
// operators of one step may run in any order, and in another one on every worker: TensorFlow's executors promise none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "poseidon/poseidon.h"

namespace poseidon::tensorflow {

// How a sum has ended: an empty message when it is there.
using SumDoneFn = std::function<void(const std::string& failure)>;

// Of a batch: this worker's samples and all workers'.
struct Part {
  std::int64_t own = 0;
  std::int64_t all = 0;
};

// Any thread.
class Link {
 public:
  // That of this process.
  static Link& instance();

  // From now on sums are made in this cluster, whose tensors are `tensors` many and next take part in iteration `first`. Null: in none.
  void use(poseidon_cluster* cluster, std::size_t tensors, std::uint64_t first);

  // The sum over all workers replaces what is in `memory`, which is borrowed until `done` is called: once, possibly before this
  // returns, else by the library's lane. `present` false: this worker adds nothing.
  void sum(std::uint32_t tensor, void* memory, bool present, SumDoneFn done);

  // The batch that the script has taken last; noughts where it is whole on every worker.
  void take(Part part);
  Part part();

  // Of all tensors the iteration that the next sum belongs to, and the largest of them.
  std::uint64_t next_iteration();

 private:
  std::mutex mutex_;
  poseidon_cluster* cluster_ = nullptr;  // guarded by mutex_, as is the next
  std::vector<std::uint64_t> next_;      // by tensor: the iteration that its next sum belongs to
  Part part_;                            // guarded by mutex_
};

}  // namespace poseidon::tensorflow
