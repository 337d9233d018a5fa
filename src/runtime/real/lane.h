// One real lane: an Asio event loop and the thread that runs it.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include <map>
#include <memory>
#include <string>
#include <thread>

#include "poseidon/error.h"
#include "runtime/runtime.h"

namespace poseidon::runtime::real {

class RealLane : public Runtime {
 public:
  // Starts the thread, under `name` (at most 15 characters are shown by the system's tools).
  explicit RealLane(const std::string& name);
  // The thread runs on this core only. kSystem where it may not.
  Status pin(int core);
  // Ends the loop: tasks that are still queued do not run, and are destroyed on the calling thread.
  ~RealLane() override;
  RealLane(const RealLane&) = delete;
  RealLane& operator=(const RealLane&) = delete;

  Time now() const override;
  void post(Task task) override;
  TimerId after(Duration delay, Task task) override;
  void cancel(TimerId timer) override;

  // Runs `task` on the lane and returns when it is done. Not from the lane itself.
  void run(const Task& task);
  bool is_current() const { return std::this_thread::get_id() == thread_.get_id(); }
  asio::io_context& loop() { return loop_; }

 private:
  asio::io_context loop_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::map<std::uint64_t, asio::steady_timer> timers_;  // lane only
  std::uint64_t next_timer_ = 1;                        // lane only
  std::thread thread_;
};

}  // namespace poseidon::runtime::real
