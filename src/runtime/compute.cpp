#include "runtime/compute.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "runtime/sum_kernels.h"

namespace poseidon::runtime {
namespace {

template <typename T>
void product_as(const ProductJob& job) {
  const T* const u = reinterpret_cast<const T*>(job.u);
  const T* const v = reinterpret_cast<const T*>(job.v);
  T* const out = reinterpret_cast<T*>(job.out);
  for (std::size_t i = 0; i < job.m; ++i) {
    T* const row = out + i * job.out_stride;
    std::fill_n(row, job.n, T{0});
    for (std::size_t k = 0; k < job.rows; ++k) {
      const T factor = u[k * job.m + i];
      for (std::size_t j = 0; j < job.n; ++j) row[j] += factor * v[k * job.n + j];
    }
  }
  if (job.bias == nullptr) return;
  T* const bias = reinterpret_cast<T*>(job.bias);
  for (std::size_t i = job.bias_begin; i < job.bias_end; ++i) {
    T sum{0};
    for (std::size_t k = 0; k < job.rows; ++k) sum += u[k * job.m + i];
    bias[i - job.bias_begin] = sum;
  }
}

}  // namespace

void sum_now(const SumJob& job) {
  if (job.out == nullptr || job.elements == 0) return;
  sum_kernels_here().back().of(job.dtype)({job.addends, job.elements, job.out, job.copy});
}

void copy_product(const ProductJob& job) {
  const std::size_t width = bytes_of(job.dtype);
  if (job.copy != nullptr) {
    for (std::size_t i = 0; i < job.m; ++i) {
      std::memcpy(job.copy + i * job.copy_stride * width, job.out + i * job.out_stride * width, job.n * width);
    }
  }
  if (job.bias != nullptr && job.bias_copy != nullptr) {
    std::memcpy(job.bias_copy, job.bias, (job.bias_end - job.bias_begin) * width);
  }
}

void product_now(const ProductJob& job) {
  if (job.out == nullptr) return;
  POSEIDON_CHECK(job.dtype == DType::kFloat64 || job.dtype == DType::kFloat32, to_string(job.dtype));
  if (job.dtype == DType::kFloat64) {
    product_as<double>(job);
  } else {
    product_as<float>(job);
  }
  copy_product(job);
}

void SimpleCompute::sum(SumJob job, ComputeDoneFn done) {
  sum_now(job);
  done(std::nullopt);
}

void SimpleCompute::product(ProductJob job, ComputeDoneFn done) {
  product_now(job);
  done(std::nullopt);
}

}  // namespace poseidon::runtime
