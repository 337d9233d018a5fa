// The engine's arithmetic by ATen: products on a thread of their own, sums at once.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::aten {

class AtenCompute : public runtime::Compute {
 public:
  // `lane` outlives this. `threads`: how many a product may use; equal on all workers, since the last bits of a product may
  // depend on it.
  AtenCompute(runtime::Runtime& lane, int threads);
  // Jobs that have not begun are dropped without a word.
  ~AtenCompute() override;

  // A piece of 64 KiB is summed in some ten microseconds: on the lane, where it is in cache.
  void sum(runtime::SumJob job, runtime::ComputeDoneFn done) override;
  void product(runtime::ProductJob job, runtime::ComputeDoneFn done) override;

 private:
  void run(int threads);

  runtime::Runtime& lane_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<runtime::ProductJob, runtime::ComputeDoneFn>> jobs_;  // guarded by mutex_
  bool stop_ = false;                                                       // guarded by mutex_
  std::thread thread_;
};

}  // namespace poseidon::aten
