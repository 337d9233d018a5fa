#include "runtime/compute.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/half.h"
#include "runtime/sum_kernels.h"

namespace poseidon::runtime {
namespace {

// How a type is kept in memory, and in which type its products are added.
template <typename T>
struct Number {
  using Stored = T;
  using Added = T;
  static T load(T value) { return value; }
  static T store(T value) { return value; }
};

struct BFloat16 {
  using Stored = std::uint16_t;
  using Added = float;
  static float load(std::uint16_t bits) { return base::from_bfloat16(bits); }
  static std::uint16_t store(float value) { return base::to_bfloat16(value); }
};

struct Float16 {
  using Stored = std::uint16_t;
  using Added = float;
  static float load(std::uint16_t bits) { return base::from_float16(bits); }
  static std::uint16_t store(float value) { return base::to_float16(value); }
};

template <typename Type>
void product_as(const ProductJob& job) {
  using Stored = typename Type::Stored;
  using Added = typename Type::Added;
  const Stored* const u = reinterpret_cast<const Stored*>(job.u);
  const Stored* const v = reinterpret_cast<const Stored*>(job.v);
  Stored* const out = reinterpret_cast<Stored*>(job.out);
  std::vector<Added> row(job.n);
  for (std::size_t i = 0; i < job.m; ++i) {
    std::fill(row.begin(), row.end(), Added{0});
    for (std::size_t k = 0; k < job.rows; ++k) {
      const Added factor = Type::load(u[k * job.m + i]);
      for (std::size_t j = 0; j < job.n; ++j) row[j] += factor * Type::load(v[k * job.n + j]);
    }
    std::transform(row.begin(), row.end(), out + i * job.out_stride, Type::store);
  }
}

template <typename Type>
void sum_columns_as(const ProductJob& job) {
  using Stored = typename Type::Stored;
  using Added = typename Type::Added;
  const Stored* const u = reinterpret_cast<const Stored*>(job.u);
  Stored* const bias = reinterpret_cast<Stored*>(job.bias);
  for (std::size_t i = job.bias_begin; i < job.bias_end; ++i) {
    Added sum{0};
    for (std::size_t k = 0; k < job.rows; ++k) sum += Type::load(u[k * job.m + i]);
    bias[i - job.bias_begin] = Type::store(sum);
  }
}

// Calls `of_type` with the job's element type as its template argument.
template <typename OfType>
void with_type(DType type, OfType of_type) {
  switch (type) {
    case DType::kFloat32:
      return of_type.template operator()<Number<float>>();
    case DType::kFloat64:
      return of_type.template operator()<Number<double>>();
    case DType::kBFloat16:
      return of_type.template operator()<BFloat16>();
    case DType::kFloat16:
      return of_type.template operator()<Float16>();
  }
  POSEIDON_CHECK(false, "a product of type ", static_cast<int>(type));
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

void sum_columns_now(const ProductJob& job) {
  if (job.bias == nullptr) return;
  with_type(job.dtype, [&]<typename Type> { sum_columns_as<Type>(job); });
}

void product_now(const ProductJob& job) {
  if (job.out == nullptr) return;
  with_type(job.dtype, [&]<typename Type> { product_as<Type>(job); });
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
