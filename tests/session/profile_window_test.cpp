#include "session/profile_window.h"

#include <gtest/gtest.h>

namespace poseidon::session {
namespace {

using namespace std::chrono_literals;

// Iterations of 200 ms, each told to take `seconds`; gives the profiles by the iteration at whose end they came.
struct Worker {
  void run(int iterations, double seconds) {
    for (int i = 0; i < iterations; ++i) {
      window.add(next, {.seconds = seconds, .waited_seconds = 0, .handed_in = {seconds}});
      now += 200ms;
      if (auto profile = window.take(now)) profiles.emplace_back(next, *profile);
      ++next;
    }
  }
  ProfileWindow window;
  Iteration next = 0;
  runtime::Time now{};
  std::vector<std::pair<Iteration, plan::Profile>> profiles;
};

TEST(ProfileWindow, OpensAfterTheWarmUpAndGivesEachIterationOnce) {
  Worker worker;
  worker.run(3, 100);
  worker.run(17, 1);
  // Iterations 3 to 10 are eight, and 1.4 s; then 11 to 18.
  ASSERT_EQ(worker.profiles.size(), 2u);
  EXPECT_EQ(worker.profiles[0].first, 10u);
  EXPECT_EQ(worker.profiles[0].second.iteration, 10u);
  EXPECT_EQ(worker.profiles[0].second.iteration_seconds, 1) << "the warm-up does not count";
  EXPECT_EQ(worker.profiles[1].first, 18u);
}

TEST(ProfileWindow, BeginsAnewWhenSomethingHasChanged) {
  Worker worker;
  worker.run(9, 5);
  worker.window.clear();
  worker.run(3, 100);
  worker.run(8, 1);
  ASSERT_EQ(worker.profiles.size(), 1u);
  EXPECT_EQ(worker.profiles[0].second.iteration_seconds, 1);
}

TEST(ProfileWindow, ManyShortIterationsGiveAProfileASecond) {
  ProfileWindow window;
  int profiles = 0;
  for (int i = 0; i < 10'003; ++i) {
    window.add(static_cast<Iteration>(i), {.seconds = 0.001, .waited_seconds = 0, .handed_in = {0.001}});
    if (window.take(i * 1ms)) ++profiles;
  }
  EXPECT_NEAR(profiles, 10, 1);
}

}  // namespace
}  // namespace poseidon::session
