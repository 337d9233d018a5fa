// A device that is only waited for, as long as one of a given speed would compute: for measurements of communication on machines without
// such a device. The script's layers and the products of factors take turns on it, as they would on a GPU. Sums are made in earnest.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::python {

// All functions may be called from any thread.
class WaitedDevice {
 public:
  using Clock = std::chrono::steady_clock;

  explicit WaitedDevice(double flops_per_second) : flops_per_second_(flops_per_second) {}

  // The device has had nothing to do until now: what comes next was not there before.
  void catch_up() {
    const std::lock_guard lock(mutex_);
    free_ = std::max(free_, Clock::now());
  }
  // Returns when the device has computed for so long, after all that it was given before. Counted from when that ended, so that neither
  // a sleep's lateness nor the caller's own work adds up: see catch_up().
  void compute(double seconds) { std::this_thread::sleep_until(take(std::chrono::duration<double>(seconds), Clock::time_point::min())); }
  // How long from now until the device will have multiplied.
  Clock::duration multiply(double flops) {
    const Clock::time_point now = Clock::now();
    return take(std::chrono::duration<double>(flops / flops_per_second_), now) - now;
  }

 private:
  Clock::time_point take(std::chrono::duration<double> cost, Clock::time_point not_before) {
    const std::lock_guard lock(mutex_);
    free_ = std::max(free_, not_before) + std::chrono::duration_cast<Clock::duration>(cost);
    return free_;
  }

  const double flops_per_second_;
  std::mutex mutex_;
  Clock::time_point free_{};  // guarded by mutex_
};

class WaitedProducts final : public runtime::Compute {
 public:
  // `lane` outlives this.
  WaitedProducts(runtime::Runtime& lane, std::shared_ptr<WaitedDevice> device, int workers)
      : lane_(lane), device_(std::move(device)), workers_(workers) {}

  void sum(runtime::SumJob job, runtime::ComputeDoneFn done) override { sums_.sum(std::move(job), std::move(done)); }
  // The product of the worker's own rows is part of its layer's backward pass, which the script waits for; the others' come on top.
  void product(runtime::ProductJob job, runtime::ComputeDoneFn done) override {
    const double others_rows = static_cast<double>(job.rows) * (workers_ - 1) / workers_;
    const WaitedDevice::Clock::duration left = device_->multiply(2 * others_rows * static_cast<double>(job.m) * static_cast<double>(job.n));
    lane_.after(std::max(left, WaitedDevice::Clock::duration(0)), [done = std::move(done)] { done(std::nullopt); });
  }

 private:
  runtime::Runtime& lane_;
  runtime::SimpleCompute sums_;
  std::shared_ptr<WaitedDevice> device_;
  int workers_;
};

}  // namespace poseidon::python
