// A worker's arithmetic in the real world: sums at once, products of factors on a thread of their own.
//
// A lane must never wait for a product, so they are made one after the other beside it, by a routine that the derived class
// brings: a framework's, or a program's.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::runtime::real {

struct ProductThreadOptions {
  // Makes one product as ProductJob says, the bias and the copies too. Called on the thread; may throw.
  std::function<Status(const ProductJob& job)> multiply;
  // Called once, on the thread, before the first product. May be null.
  std::function<void()> prepare;
};

class ProductThread : public Compute {
 public:
  // `lane` outlives this.
  ProductThread(Runtime& lane, ProductThreadOptions options);
  // Waits for the product that is being made; those that have not begun are dropped without a word.
  ~ProductThread() override;

  // A piece of 64 KiB is summed in some ten microseconds: on the lane, where it is in cache.
  void sum(SumJob job, ComputeDoneFn done) override;
  void product(ProductJob job, ComputeDoneFn done) override;

 private:
  void run();
  Status make(const ProductJob& job) const;

  Runtime& lane_;
  const ProductThreadOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<ProductJob, ComputeDoneFn>> jobs_;  // guarded by mutex_
  bool stop_ = false;                                      // guarded by mutex_
  std::thread thread_;
};

}  // namespace poseidon::runtime::real
