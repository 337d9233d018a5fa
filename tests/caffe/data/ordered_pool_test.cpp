#include "engines/caffe/data/ordered_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

namespace poseidon::caffe {
namespace {

using Pool = OrderedPool<int, std::string>;

TEST(OrderedPool, HandsResultsOutInTheOrderOfTheirTasks) {
  for (const std::size_t threads : {1, 2, 7}) {
    int next = 0;
    Pool pool(
        {threads, 2 * threads}, [&] { return next++; },
        [](int task) {
          // Later tasks are done sooner.
          std::this_thread::sleep_for(std::chrono::microseconds(task % 5 == 0 ? 500 : 0));
          return std::to_string(task);
        });
    for (int i = 0; i < 100; ++i) EXPECT_EQ(pool.next(), std::to_string(i));
  }
}

TEST(OrderedPool, WorksOnSeveralTasksAtOnce) {
  // Each of the first two waits for the other: one thread alone would never end.
  std::atomic<int> here{0};
  int next = 0;
  Pool pool(
      {2, 2}, [&] { return next++; },
      [&](int task) {
        if (task < 2) {
          ++here;
          while (here < 2) std::this_thread::yield();
        }
        return std::to_string(task);
      });
  for (int i = 0; i < 10; ++i) EXPECT_EQ(pool.next(), std::to_string(i));
}

TEST(OrderedPool, TakesNoMoreThanItMay) {
  std::atomic<int> taken{0};
  Pool pool({3, 5}, [&] { return taken++; }, [](int task) { return std::to_string(task); });
  for (int handed_out = 1; handed_out < 50; ++handed_out) {
    static_cast<void>(pool.next());
    EXPECT_LE(taken, handed_out + 5);
  }
}

TEST(OrderedPool, ThrowsAtTheFailedTasksTurn) {
  int next = 0;
  Pool pool(
      {3, 6}, [&] { return next++; },
      [](int task) {
        if (task == 4) throw std::runtime_error("four");
        return std::to_string(task);
      });
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pool.next(), std::to_string(i));
  EXPECT_THROW(static_cast<void>(pool.next()), std::runtime_error);
  EXPECT_THROW(static_cast<void>(pool.next()), std::runtime_error);
}

TEST(OrderedPool, ThrowsWhereNoTaskCouldBeTaken) {
  int next = 0;
  Pool pool(
      {2, 4},
      [&] {
        if (next == 3) throw std::runtime_error("no more");
        return next++;
      },
      [](int task) { return std::to_string(task); });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(pool.next(), std::to_string(i));
  EXPECT_THROW(static_cast<void>(pool.next()), std::runtime_error);
  EXPECT_THROW(static_cast<void>(pool.next()), std::runtime_error);
}

TEST(OrderedPool, EndsWhileResultsAreLeft) {
  int next = 0;
  Pool pool({4, 8}, [&] { return next++; }, [](int task) { return std::to_string(task); });
  EXPECT_EQ(pool.next(), "0");
}

}  // namespace
}  // namespace poseidon::caffe
