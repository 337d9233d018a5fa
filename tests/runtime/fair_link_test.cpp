#include "runtime/sim/fair_link.h"

#include <gtest/gtest.h>

#include <deque>
#include <limits>
#include <map>
#include <random>

namespace poseidon::runtime::sim {
namespace {

using namespace std::chrono_literals;

struct Left {
  int frame;
  Time began;
  Time at;
};

// Until the time, or until nothing waits.
std::vector<Left> leave(FairLink<int>& link, Time until = Time::max()) {
  std::vector<Left> left;
  while (link.next() && *link.next() <= until) {
    const Time at = *link.next();
    const FairLink<int>::Departure departure = link.pop();
    left.push_back({departure.frame, departure.began, at});
  }
  return left;
}

TEST(FairLink, OneConnectionHasAllOfIt) {
  FairLink<int> link;
  EXPECT_FALSE(link.next().has_value());
  link.push(Time(1s), 0, 1, 100, 100);
  link.push(Time(1s), 0, 2, 50, 100);
  const std::vector<Left> left = leave(link);
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].at, 2s);
  EXPECT_EQ(left[1].at, 2500ms);
  EXPECT_EQ(left[1].began, 2s) << "after the one before it";
}

// Worked by hand. From 0 s two share 100 bytes a second: 50 each. At 1 s frame 1 has 50 bytes left and frame 2 has 250, and a third
// begins: a third of the rate each, so frames 1 and 3 leave at 2.5 s. Frame 2 then has 200 bytes left and the link for itself.
TEST(FairLink, ThoseThatHaveSomethingShareItEqually) {
  FairLink<int> link;
  link.push(Time(0s), 0, 1, 100, 100);
  link.push(Time(0s), 1, 2, 300, 100);
  EXPECT_EQ(*link.next(), 2s);
  link.push(Time(1s), 2, 3, 50, 100);
  const std::vector<Left> left = leave(link);
  ASSERT_EQ(left.size(), 3u);
  EXPECT_EQ(left[0].frame, 1);
  EXPECT_NEAR(std::chrono::duration<double>(left[0].at).count(), 2.5, 1e-8);
  EXPECT_EQ(left[1].frame, 3);
  EXPECT_NEAR(std::chrono::duration<double>(left[1].at).count(), 2.5, 1e-8);
  EXPECT_EQ(left[1].began, 1s);
  EXPECT_EQ(left[2].frame, 2);
  EXPECT_NEAR(std::chrono::duration<double>(left[2].at).count(), 4.5, 1e-8);
}

// Against what follows step by step from the definition: until the next frame ends or comes, every connection that has one is served
// at an equal part of the rate.
TEST(FairLink, IsWhatSharingStepByStepGives) {
  constexpr double kRate = 1000;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    FairLink<int> link;
    struct Frame {
      int number;
      double left;
    };
    std::map<std::size_t, std::deque<Frame>> queues;
    std::map<int, double> expected;
    double now = 0;
    const auto serve = [&](double until) {
      while (!queues.empty()) {
        double least = std::numeric_limits<double>::infinity();
        for (const auto& [connection, frames] : queues) least = std::min(least, frames.front().left);
        const double each = kRate / static_cast<double>(queues.size());
        const double step = std::min(least / each, until - now);
        now += step;
        for (auto& [connection, frames] : queues) frames.front().left -= step * each;
        for (auto queue = queues.begin(); queue != queues.end();) {
          if (queue->second.front().left < 1e-9) {
            expected[queue->second.front().number] = now;
            queue->second.pop_front();
          }
          queue = queue->second.empty() ? queues.erase(queue) : std::next(queue);
        }
        if (now >= until) return;
      }
      now = until;
    };
    std::vector<Left> left;
    double at = 0;
    for (int number = 0; number < 60; ++number) {
      if (random() % 3 != 0) at += static_cast<double>(random() % 200) / 1000;
      const std::size_t connection = random() % 4;
      const std::size_t bytes = 1 + random() % 150;
      serve(at);
      const Time then(static_cast<std::int64_t>(std::llround(at * 1e9)));
      for (const Left& one : leave(link, then)) left.push_back(one);
      link.push(then, connection, number, bytes, kRate);
      queues[connection].push_back({number, static_cast<double>(bytes)});
    }
    serve(std::numeric_limits<double>::infinity());
    for (const Left& one : leave(link)) left.push_back(one);
    ASSERT_EQ(left.size(), expected.size());
    for (const Left& one : left) {
      EXPECT_NEAR(std::chrono::duration<double>(one.at).count(), expected.at(one.frame), 1e-6) << "frame " << one.frame << ", seed " << seed;
    }
  }
}

}  // namespace
}  // namespace poseidon::runtime::sim
