// The engine's arithmetic for a program without a framework: sums at once, products of factors on a thread of their own.
//
// A lane must never wait for a product, so they are made one after the other beside it, by the routine that the program has
// brought, or by the plain loops of runtime::product_now.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "poseidon/cluster.h"
#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::library {

class ProductThread final : public runtime::Compute {
 public:
  // `lane` outlives this. An empty `product`: plain loops.
  ProductThread(runtime::Runtime& lane, ProductFn product);
  // Waits for the product that is being made; those that have not begun are dropped without a word.
  ~ProductThread() override;

  // A piece of 64 KiB is summed in some ten microseconds: on the lane, where it is in cache.
  void sum(runtime::SumJob job, runtime::ComputeDoneFn done) override;
  void product(runtime::ProductJob job, runtime::ComputeDoneFn done) override;

 private:
  void run();
  Status multiply(const runtime::ProductJob& job) const;

  runtime::Runtime& lane_;
  const ProductFn product_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<runtime::ProductJob, runtime::ComputeDoneFn>> jobs_;  // guarded by mutex_
  bool stop_ = false;                                                        // guarded by mutex_
  std::thread thread_;
};

}  // namespace poseidon::library
