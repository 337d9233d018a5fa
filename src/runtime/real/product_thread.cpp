#include "runtime/real/product_thread.h"

#include <pthread.h>

#include <exception>
#include <optional>
#include <string>

namespace poseidon::runtime::real {

ProductThread::ProductThread(Runtime& lane, ProductThreadOptions options)
    : lane_(lane), options_(std::move(options)), thread_([this] { run(); }) {
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

void ProductThread::sum(SumJob job, ComputeDoneFn done) {
  sum_now(job);
  done(std::nullopt);
}

void ProductThread::product(ProductJob job, ComputeDoneFn done) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.emplace_back(job, std::move(done));
  }
  changed_.notify_one();
}

Status ProductThread::make(const ProductJob& job) const {
  constexpr const char* kFailed = "a product of sufficient factors failed: ";
  try {
    const Status made = options_.multiply(job);
    if (!made) return Error{made.error().code, kFailed + made.error().message};
    return {};
  } catch (const std::exception& e) {
    return Error{ErrorCode::kSystem, std::string(kFailed) + e.what()};
  }
}

void ProductThread::run() {
  if (options_.prepare) options_.prepare();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const auto [job, done] = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    const Status made = make(job);
    std::optional<Error> error;
    if (!made) error = made.error();
    lane_.post([done = done, error] { done(error); });
    lock.lock();
  }
}

}  // namespace poseidon::runtime::real
