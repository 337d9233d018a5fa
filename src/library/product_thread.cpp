#include "library/product_thread.h"

#include <pthread.h>

#include <optional>

namespace poseidon::library {

ProductThread::ProductThread(runtime::Runtime& lane, ProductFn product)
    : lane_(lane), product_(std::move(product)), thread_([this] { run(); }) {
  ::pthread_setname_np(thread_.native_handle(), "psd product");
}

ProductThread::~ProductThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ProductThread::sum(runtime::SumJob job, runtime::ComputeDoneFn done) {
  runtime::sum_now(job);
  done(std::nullopt);
}

void ProductThread::product(runtime::ProductJob job, runtime::ComputeDoneFn done) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.emplace_back(job, std::move(done));
  }
  changed_.notify_one();
}

Status ProductThread::multiply(const runtime::ProductJob& job) const {
  if (!product_) {
    runtime::product_now(job);
    return {};
  }
  const Status made = product_({.dtype = job.dtype,
                                .rows = job.rows,
                                .outputs = job.m,
                                .inputs = job.n,
                                .u = job.u,
                                .v = job.v,
                                .out = job.out,
                                .out_stride = job.out_stride});
  if (!made) return Error{made.error().code, "a product of sufficient factors failed: " + made.error().message};
  runtime::sum_columns_now(job);
  runtime::copy_product(job);
  return {};
}

void ProductThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const auto [job, done] = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    const Status made = multiply(job);
    std::optional<Error> error;
    if (!made) error = made.error();
    lane_.post([done, error] { done(error); });
    lock.lock();
  }
}

}  // namespace poseidon::library
