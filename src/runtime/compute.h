// Arithmetic as the state machines see it: asked for, and done later.
//
// A lane must never wait for a product of matrices, and virtual time must be able to charge for one. The frameworks bring
// their own implementation (ATen's products); SimpleCompute is the one without a framework.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/types.h"

namespace poseidon::runtime {

using ComputeDoneFn = std::function<void(const std::optional<Error>& error)>;

// out[i] = addends[0][i] + addends[1][i] + ..., from left to right, so that the result depends on the order of the addends
// and on nothing else. Types of 16 bits are added in float32 and rounded once, at the end. `out` and `copy` may each be one of
// the addends. `copy`, where given, receives the same as `out`.
struct SumJob {
  DType dtype = DType::kFloat32;
  std::vector<const std::byte*> addends;
  std::byte* out = nullptr;
  std::byte* copy = nullptr;
  std::size_t elements = 0;
};

// out [m, n] = Uᵀ V for U [rows, m] and V [rows, n], both contiguous; rows of `out` lie out_stride elements apart. Types of 16
// bits are multiplied and added in float32 and rounded once.
// bias [bias_end - bias_begin]: the sums of U's columns [bias_begin, bias_end), where wanted.
// `copy` and `bias_copy`, where given, receive the same as `out` and `bias`.
struct ProductJob {
  DType dtype = DType::kFloat32;
  std::size_t rows = 0;
  std::size_t m = 0;
  std::size_t n = 0;
  const std::byte* u = nullptr;
  const std::byte* v = nullptr;
  std::byte* out = nullptr;
  std::size_t out_stride = 0;
  std::byte* bias = nullptr;
  std::size_t bias_begin = 0;
  std::size_t bias_end = 0;
  std::byte* copy = nullptr;
  std::size_t copy_stride = 0;
  std::byte* bias_copy = nullptr;
  std::optional<TensorId> weight;  // whose gradient it is, for those who account for time
};

class Compute {
 public:
  virtual ~Compute() = default;

  // Called on the lane; `done` runs on the lane, for sums possibly before the call returns. All memory is borrowed until
  // then. Size-only jobs have null pointers.
  virtual void sum(SumJob job, ComputeDoneFn done) = 0;
  virtual void product(ProductJob job, ComputeDoneFn done) = 0;
};

// For implementations of Compute, on the calling thread: the sum itself, vectorised; the bias of a product; and the copies that
// a product wants.
void sum_now(const SumJob& job);
void sum_columns_now(const ProductJob& job);
void copy_product(const ProductJob& job);
// float32 to a type of 16 bits, `to`, and back (runtime/sum_kernels.h): vectorised, on the calling thread.
void narrow_now(const std::byte* float32, std::size_t elements, DType to, std::byte* out);
void widen_now(const std::byte* narrow, std::size_t elements, DType from, std::byte* float32);
// The product in plain loops: right, slow. For tests and for callers without a framework.
void product_now(const ProductJob& job);

// Does everything at once on the lane.
class SimpleCompute : public Compute {
 public:
  void sum(SumJob job, ComputeDoneFn done) override;
  void product(ProductJob job, ComputeDoneFn done) override;
};

}  // namespace poseidon::runtime
