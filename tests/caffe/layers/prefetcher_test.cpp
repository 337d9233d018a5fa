#include "engines/caffe/layers/prefetcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>
#include <stdexcept>

namespace poseidon::caffe {
namespace {

TEST(Prefetcher, YieldsItemsInTheOrderOfTheirMaking) {
  int made = 0;
  Prefetcher<int> numbers(3, [&] { return made++; });
  for (int i = 0; i < 100; ++i) EXPECT_EQ(numbers.next(), i);
}

TEST(Prefetcher, IsAheadByItsBoundAndNoMore) {
  std::counting_semaphore made(0);
  std::atomic<int> count = 0;
  Prefetcher<int> numbers(3, [&] {
    const int number = count++;
    made.release();
    return number;
  });
  for (int i = 0; i < 3; ++i) made.acquire();
  // A fourth would be made now if there were room for it.
  EXPECT_FALSE(made.try_acquire_for(std::chrono::milliseconds(50)));
  EXPECT_EQ(numbers.next(), 0);
  made.acquire();
  EXPECT_EQ(count, 4);
}

TEST(Prefetcher, ThrowsWhatItsThreadMetWhenTheItemsAreUsedUp) {
  int made = 0;
  Prefetcher<int> numbers(5, [&]() -> int {
    if (made == 2) throw std::runtime_error("damaged");
    return made++;
  });
  EXPECT_EQ(numbers.next(), 0);
  EXPECT_EQ(numbers.next(), 1);
  EXPECT_THROW(numbers.next(), std::runtime_error);
  EXPECT_THROW(numbers.next(), std::runtime_error);
}

TEST(Prefetcher, EndsWithItemsLeftOver) {
  for (int i = 0; i < 100; ++i) Prefetcher<int> unused(2, [] { return 1; });
}

}  // namespace
}  // namespace poseidon::caffe
