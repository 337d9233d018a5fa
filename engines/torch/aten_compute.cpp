#include "engines/torch/aten_compute.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>
#include <pthread.h>

#include <exception>
#include <optional>

#include "engines/torch/tensor_view.h"

namespace poseidon::aten {
namespace {

at::Tensor matrix(const std::byte* data, std::size_t rows, std::size_t cols, DType dtype) {
  return at::from_blob(const_cast<std::byte*>(data), {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)},
                       at::TensorOptions().dtype(scalar_type_of(dtype)));
}

void multiply(const runtime::ProductJob& job) {
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
}

}  // namespace

AtenCompute::AtenCompute(runtime::Runtime& lane, int threads) : lane_(lane), thread_([this, threads] { run(threads); }) {
  ::pthread_setname_np(thread_.native_handle(), "psd product");
}

AtenCompute::~AtenCompute() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void AtenCompute::sum(runtime::SumJob job, runtime::ComputeDoneFn done) {
  runtime::sum_now(job);
  done(std::nullopt);
}

void AtenCompute::product(runtime::ProductJob job, runtime::ComputeDoneFn done) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.emplace_back(job, std::move(done));
  }
  changed_.notify_one();
}

void AtenCompute::run(int threads) {
  at::set_num_threads(threads);  // holds for the calling thread
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const auto [job, done] = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    std::optional<Error> error;
    try {
      multiply(job);
    } catch (const std::exception& e) {
      error = Error{ErrorCode::kSystem, std::string("a product of sufficient factors failed: ") + e.what()};
    }
    lane_.post([done = std::move(done), error] { done(error); });
    lock.lock();
  }
}

}  // namespace poseidon::aten
