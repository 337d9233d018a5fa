// Products of matrices that are only waited for, as long as a device of a given speed would take: for measurements of communication on
// machines without such a device. Sums are made.
#pragma once

#include "replay/device.h"
#include "runtime/compute.h"

namespace poseidon::python {

class WaitedProducts final : public runtime::Compute {
 public:
  // `lane` outlives this.
  WaitedProducts(runtime::Runtime& lane, double flops_per_second) : lane_(lane), device_(lane), flops_per_second_(flops_per_second) {}

  void sum(runtime::SumJob job, runtime::ComputeDoneFn done) override { sums_.sum(std::move(job), std::move(done)); }
  void product(runtime::ProductJob job, runtime::ComputeDoneFn done) override {
    const double flops = 2.0 * static_cast<double>(job.rows) * static_cast<double>(job.m) * static_cast<double>(job.n);
    const auto cost = std::chrono::duration_cast<runtime::Duration>(std::chrono::duration<double>(flops / flops_per_second_));
    device_.run(lane_.now(), cost, [done = std::move(done)](runtime::Time) { done(std::nullopt); });
  }

 private:
  runtime::Runtime& lane_;
  runtime::SimpleCompute sums_;
  replay::Device device_;
  double flops_per_second_;
};

}  // namespace poseidon::python
