// Work on several threads whose results come in the order in which the work was taken up.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace poseidon::caffe {

// How many tasks may be under way for each thread. Images take unequally long, and twice the threads hides that.
constexpr std::size_t kAheadPerThread = 2;

// `take` says what comes next; it is called by one thread at a time, so it may keep state. `work` is called by many at
// once. At most `ahead` tasks are taken and not yet handed out; then the threads wait. What `take` or `work` throws,
// next() throws in its turn, and from then on again and again; after an exception of `take` nothing more is taken.
template <typename Task, typename Result>
class OrderedPool {
 public:
  struct Size {
    std::size_t threads = 1;
    std::size_t ahead = 1;  // at least `threads`, or some have nothing to do
  };
  OrderedPool(Size size, std::function<Task()> take, std::function<Result(Task)> work)
      : ahead_(size.ahead), take_(std::move(take)), work_(std::move(work)) {
    for (std::size_t i = 0; i < size.threads; ++i) threads_.emplace_back([this] { run(); });
  }
  // Waits for the tasks that are being worked on.
  ~OrderedPool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
  }
  OrderedPool(const OrderedPool&) = delete;
  OrderedPool& operator=(const OrderedPool&) = delete;

  // From one thread only.
  Result next() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !slots_.empty() && slots_.front().is_done(); });
    if (slots_.front().error) std::rethrow_exception(slots_.front().error);
    Result result = std::move(*slots_.front().result);
    slots_.pop_front();
    lock.unlock();
    room_.notify_one();
    return result;
  }

 private:
  struct Slot {
    std::optional<Result> result;
    std::exception_ptr error;
    bool is_done() const { return result || error; }
  };

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      room_.wait(lock, [this] { return stopping_ || (!ended_ && slots_.size() < ahead_); });
      if (stopping_) return;
      Slot& slot = slots_.emplace_back();  // stays where it is while others come behind it and go before it
      std::optional<Task> task;
      try {
        task = take_();
      } catch (...) {
        slot.error = std::current_exception();
        ended_ = true;
        ready_.notify_one();
        continue;
      }
      lock.unlock();
      Slot done;
      try {
        done.result = work_(std::move(*task));
      } catch (...) {
        done.error = std::current_exception();
      }
      lock.lock();
      slot = std::move(done);
      ready_.notify_one();
    }
  }

  const std::size_t ahead_;
  const std::function<Task()> take_;
  const std::function<Result(Task)> work_;
  std::mutex mutex_;        // guards slots_, ended_, stopping_ and calls of take_
  std::deque<Slot> slots_;  // what was taken and not handed out, the oldest first
  bool ended_ = false;      // take_ has thrown
  bool stopping_ = false;
  std::condition_variable room_;
  std::condition_variable ready_;
  std::vector<std::jthread> threads_;  // last: they use all the others
};

}  // namespace poseidon::caffe
