// The engine's arithmetic by ATen: products on a thread of their own, sums at once.
#pragma once

#include "runtime/real/product_thread.h"

namespace poseidon::aten {

class AtenCompute final : public runtime::real::ProductThread {
 public:
  // `lane` outlives this. `threads`: how many a product may use; equal on all workers, since the last bits of a product may
  // depend on it.
  AtenCompute(runtime::Runtime& lane, int threads);
};

}  // namespace poseidon::aten
