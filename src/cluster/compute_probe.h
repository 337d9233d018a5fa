// Measures a member's arithmetic, and tells whether two members' arithmetic is alike. Lane only.
#pragma once

#include <functional>
#include <string>

#include "runtime/compute.h"
#include "runtime/runtime.h"

namespace poseidon::cluster {

struct ComputeSpeed {
  double flops_per_second = 0;      // of the product of factors
  double sum_bytes_per_second = 0;  // read
  // SHA-256 of a fixed product and sum. Members with the same digest get the same bits from the same factors; where it differs
  // (another CPU, another number of threads) replicas that multiply for themselves would drift apart.
  std::string digest;
};

// `done` runs on the lane; the error is the Compute's.
void probe_compute(runtime::Runtime& runtime, runtime::Compute& compute,
                   std::function<void(const Result<ComputeSpeed>& speed)> done);

}  // namespace poseidon::cluster
