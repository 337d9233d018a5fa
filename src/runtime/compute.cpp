#include "runtime/compute.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/element_types.h"
#include "runtime/sum_kernels.h"

namespace poseidon::runtime {
namespace {

template <typename Number>
void product_as(const ProductJob& job) {
  using Added = typename Number::Added;
  std::vector<Added> row(job.n);
  for (std::size_t i = 0; i < job.m; ++i) {
    std::fill(row.begin(), row.end(), Added{0});
    for (std::size_t k = 0; k < job.rows; ++k) {
      const Added factor = load<Number>(job.u, k * job.m + i);
      for (std::size_t j = 0; j < job.n; ++j) row[j] += factor * load<Number>(job.v, k * job.n + j);
    }
    for (std::size_t j = 0; j < job.n; ++j) store<Number>(row[j], job.out, i * job.out_stride + j);
  }
}

template <typename Number>
void sum_columns_as(const ProductJob& job) {
  for (std::size_t i = job.bias_begin; i < job.bias_end; ++i) {
    typename Number::Added sum{0};
    for (std::size_t k = 0; k < job.rows; ++k) sum += load<Number>(job.u, k * job.m + i);
    store<Number>(sum, job.bias, i - job.bias_begin);
  }
}

}  // namespace

void sum_now(const SumJob& job) {
  if (job.out == nullptr || job.elements == 0) return;
  sum_kernels_here().back().of(job.dtype)({job.addends, job.elements, job.out, job.copy});
}

void narrow_now(const std::byte* float32, std::size_t elements, DType to, std::byte* out) {
  sum_kernels_here().back().narrow_to(to)(float32, elements, out);
}

void widen_now(const std::byte* narrow, std::size_t elements, DType from, std::byte* float32) {
  sum_kernels_here().back().widen_from(from)(narrow, elements, float32);
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

void sum_columns_now(const ProductJob& job) {
  if (job.bias == nullptr) return;
  with_type(job.dtype, [&]<typename Number> { sum_columns_as<Number>(job); });
}

void product_now(const ProductJob& job) {
  if (job.out == nullptr) return;
  with_type(job.dtype, [&]<typename Number> { product_as<Number>(job); });
  sum_columns_now(job);
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
