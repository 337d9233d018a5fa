// A thread that makes the next items while the last ones are being used.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace poseidon::caffe {

// Calls `make` on a thread of its own, ahead of next() by at most `ahead` items; then the thread waits. The first
// exception ends the thread, and next() throws it when the items made before are used up, now and ever after.
template <typename Item>
class Prefetcher {
 public:
  Prefetcher(std::size_t ahead, std::function<Item()> make)
      : ahead_(ahead), make_(std::move(make)), thread_([this] { run(); }) {}
  // Waits for the item that is being made.
  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_one();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // From one thread only.
  Item next() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !items_.empty() || error_; });
    if (items_.empty()) std::rethrow_exception(error_);
    Item item = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    room_.notify_one();
    return item;
  }

 private:
  void run() {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return stopping_ || items_.size() < ahead_; });
        if (stopping_) return;
      }
      try {
        Item item = make_();
        const std::lock_guard lock(mutex_);
        items_.push_back(std::move(item));
      } catch (...) {
        const std::lock_guard lock(mutex_);
        error_ = std::current_exception();
      }
      ready_.notify_one();
      if (error_) return;  // written by this thread only
    }
  }

  const std::size_t ahead_;
  const std::function<Item()> make_;  // on the thread only
  std::mutex mutex_;                  // guards items_, error_ and stopping_
  std::deque<Item> items_;
  std::exception_ptr error_;
  bool stopping_ = false;
  std::condition_variable room_;   // fewer than `ahead` items, or stopping
  std::condition_variable ready_;  // an item, or the error
  std::thread thread_;             // last: it uses all the others
};

}  // namespace poseidon::caffe
