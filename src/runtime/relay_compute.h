// The arithmetic of a lane that has none of its own: sums are made here, where the pieces are in cache; products are asked of
// another lane's Compute, which makes all of a member's products one after the other.
//
// Its lane only.
#pragma once

#include <memory>

#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::runtime {

// Where products are made. Lives on its own lane, the home.
class ProductHome {
 public:
  // Both outlive this, or close() is called before they go.
  ProductHome(Runtime& lane, Compute& compute) : lane_(lane), compute_(&compute) {}

  // At home: what is asked for, or finished, from now on is dropped without a word.
  void close() { compute_ = nullptr; }

 private:
  friend class RelayCompute;
  Runtime& lane_;
  Compute* compute_;  // at home only; null after close()
};

class RelayCompute : public Compute {
 public:
  // `lane` lives until `home` is closed.
  RelayCompute(Runtime& lane, std::shared_ptr<ProductHome> home) : lane_(lane), home_(std::move(home)) {}

  void sum(SumJob job, ComputeDoneFn done) override;
  void product(ProductJob job, ComputeDoneFn done) override;

 private:
  Runtime& lane_;
  std::shared_ptr<ProductHome> home_;
};

}  // namespace poseidon::runtime
