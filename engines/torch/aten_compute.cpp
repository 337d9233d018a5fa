#include "engines/torch/aten_compute.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>

#include "engines/torch/tensor_view.h"

namespace poseidon::aten {
namespace {

at::Tensor matrix(const std::byte* data, std::size_t rows, std::size_t cols, DType dtype) {
  return at::from_blob(const_cast<std::byte*>(data), {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)},
                       at::TensorOptions().dtype(scalar_type_of(dtype)));
}

Status multiply(const runtime::ProductJob& job) {
  const c10::InferenceMode no_graph;
  // Types of 16 bits become float32 first, and the result is rounded once: libraries differ in how they add such products.
  const bool is_narrow = bytes_of(job.dtype) == 2;
  const auto factor = [&](const std::byte* data, std::size_t cols) {
    const at::Tensor stored = matrix(data, job.rows, cols, job.dtype);
    return is_narrow ? stored.to(at::kFloat) : stored;
  };
  const at::Tensor u = factor(job.u, job.m);
  const at::Tensor v = factor(job.v, job.n);
  at::Tensor out = matrix(job.out, job.m, job.out_stride, job.dtype).narrow(1, 0, static_cast<std::int64_t>(job.n));
  if (is_narrow) {
    out.copy_(at::mm(u.t(), v));
  } else {
    at::mm_out(out, u.t(), v);
  }
  if (job.bias != nullptr) {
    const std::int64_t count = static_cast<std::int64_t>(job.bias_end - job.bias_begin);
    at::Tensor bias = matrix(job.bias, 1, job.bias_end - job.bias_begin, job.dtype).view({count});
    const at::Tensor columns = u.narrow(1, static_cast<std::int64_t>(job.bias_begin), count);
    if (is_narrow) {
      bias.copy_(at::sum(columns, 0));
    } else {
      at::sum_out(bias, columns, 0);
    }
  }
  runtime::copy_product(job);
  return {};
}

}  // namespace

AtenCompute::AtenCompute(runtime::Runtime& lane, int threads)
    : ProductThread(lane, {.multiply = multiply,
                           .prepare = [threads] { at::set_num_threads(threads); }}) {}  // holds for the calling thread

}  // namespace poseidon::aten
