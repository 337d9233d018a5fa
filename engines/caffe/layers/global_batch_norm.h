// Normalisation over the batches of all workers together, for `--sync-batch-norm`.
#pragma once

#include <ATen/core/Tensor.h>

#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {

struct GlobalBatchNorm {
  at::Tensor y;         // (x - mean) / sqrt(variance of the global batch + eps), with its graph
  at::Tensor mean;      // [channels], of the global batch
  at::Tensor variance;  // [channels], with one less than their number below the line; 0 for a single value
};

// x: [records, channels, ...]; `eps` is added to the variance. The workers tell each other the moments of their batches
// here, and two sums for each channel in the backward pass, so all of them must come here in the same order. The moments
// of parts are put together as Chan, Golub and LeVeque do (Algorithms for computing the sample variance, 1983).
GlobalBatchNorm normalized_over_workers(const at::Tensor& x, double eps, aten::GradientExchange& workers);

}  // namespace poseidon::caffe
