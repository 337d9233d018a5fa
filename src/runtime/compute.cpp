#include "runtime/compute.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace poseidon::runtime {
namespace {

// Sums in blocks that stay in the first-level cache, so each addend is read once and the result written once, whatever the
// number of addends. The inner loop is a plain a[i] + b[i], which the compiler vectorises.
template <typename T>
void sum_as(const SumJob& job) {
  constexpr std::size_t kBlock = 1024;
  T* const out = reinterpret_cast<T*>(job.out);
  T* const copy = reinterpret_cast<T*>(job.copy);
  T block[kBlock];
  for (std::size_t begin = 0; begin < job.elements; begin += kBlock) {
    const std::size_t count = std::min(kBlock, job.elements - begin);
    const T* const first = reinterpret_cast<const T*>(job.addends[0]) + begin;
    std::copy_n(first, count, block);
    for (std::size_t k = 1; k < job.addends.size(); ++k) {
      const T* const addend = reinterpret_cast<const T*>(job.addends[k]) + begin;
      for (std::size_t i = 0; i < count; ++i) block[i] += addend[i];
    }
    std::copy_n(block, count, out + begin);
    if (copy != nullptr) std::copy_n(block, count, copy + begin);
  }
}

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
}

template <typename T>
void sum_columns_as(const ProductJob& job) {
  const T* const u = reinterpret_cast<const T*>(job.u);
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
  switch (job.dtype) {
    case DType::kFloat32:
      return sum_as<float>(job);
    case DType::kFloat64:
      return sum_as<double>(job);
    case DType::kBFloat16:
    case DType::kFloat16:
      break;
  }
  POSEIDON_CHECK(false, "a sum of ", to_string(job.dtype), ": the session refuses half precision before it comes here");
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
  POSEIDON_CHECK(job.dtype == DType::kFloat64 || job.dtype == DType::kFloat32, to_string(job.dtype));
  if (job.dtype == DType::kFloat64) {
    sum_columns_as<double>(job);
  } else {
    sum_columns_as<float>(job);
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
