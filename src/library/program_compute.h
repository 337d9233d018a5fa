// The engine's arithmetic for a program without a framework: products by the routine that the program has brought, or by the
// plain loops of runtime::product_now.
#pragma once

#include "poseidon/cluster.h"
#include "runtime/real/product_thread.h"

namespace poseidon::library {

class ProgramCompute final : public runtime::real::ProductThread {
 public:
  // `lane` outlives this. An empty `product`: plain loops.
  ProgramCompute(runtime::Runtime& lane, const ProductFn& product);
};

}  // namespace poseidon::library
