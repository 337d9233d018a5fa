#include "runtime/real/lane.h"

#include <pthread.h>
#include <sched.h>

#include <asio/post.hpp>

#include <cstring>
#include <future>

#include "base/text.h"

namespace poseidon::runtime::real {

RealLane::RealLane(const std::string& name) : work_(asio::make_work_guard(loop_)) {
  thread_ = std::thread([this] { loop_.run(); });
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

Status RealLane::pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  const int failed = pthread_setaffinity_np(thread_.native_handle(), sizeof set, &set);
  if (failed == 0) return {};
  return Error{ErrorCode::kSystem, base::concat("a lane cannot be pinned to core ", core, ": ", std::strerror(failed))};
}

RealLane::~RealLane() {
  loop_.stop();
  thread_.join();
  timers_.clear();
}

Time RealLane::now() const { return std::chrono::steady_clock::now().time_since_epoch(); }

void RealLane::post(Task task) { asio::post(loop_, std::move(task)); }

TimerId RealLane::after(Duration delay, Task task) {
  const std::uint64_t id = next_timer_++;
  asio::steady_timer& timer = timers_.emplace(id, asio::steady_timer(loop_, delay)).first->second;
  timer.async_wait([this, id, task = std::move(task)](const asio::error_code& failed) {
    // A timer that had already expired when it was cancelled comes here without an error.
    if (failed || timers_.erase(id) == 0) return;
    task();
  });
  return TimerId{id};
}

void RealLane::cancel(TimerId timer) { timers_.erase(static_cast<std::uint64_t>(timer)); }

void RealLane::run(const Task& task) {
  std::promise<void> done;
  post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

}  // namespace poseidon::runtime::real
