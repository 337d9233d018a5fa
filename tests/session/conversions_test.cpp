#include "session/conversions.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/hand_lane.h"

namespace poseidon::session {
namespace {

constexpr std::size_t kStep = Conversions::kStepElements;

// Nothing is ever sent here.
struct Lane : test::HandLane {
  void send(runtime::Destination, runtime::Frame, runtime::SentFn) override {}
  // Runs the oldest task only.
  void run_one() {
    const runtime::Task task = std::move(tasks.front());
    tasks.pop_front();
    task();
  }
};

struct ConversionsTest : ::testing::Test {
  // 1.5 in each place, which both types hold.
  std::vector<Conversion> narrowing(std::size_t elements) {
    wide.resize(std::max(wide.size(), elements), 1.5f);
    narrow.resize(std::max(narrow.size(), elements), 0);
    return {{.narrows = true,
             .narrow = DType::kBFloat16,
             .from = reinterpret_cast<const std::byte*>(wide.data()),
             .to = reinterpret_cast<std::byte*>(narrow.data()),
             .elements = elements}};
  }
  Conversions::DoneFn told(const std::string& name) {
    return [this, name](const std::optional<Error>& error) { done.push_back(error ? name + " " + error->message : name); };
  }

  Lane lane;
  Conversions conversions{lane};
  std::vector<float> wide;
  std::vector<std::uint16_t> narrow;
  std::vector<std::string> done;
};

TEST_F(ConversionsTest, SmallOnesAreMadeAtOnce) {
  conversions.add({0, 0}, narrowing(1'000), told("a"));
  EXPECT_EQ(done, std::vector<std::string>{"a"});
  EXPECT_EQ(narrow, std::vector<std::uint16_t>(1'000, 0x3FC0));
  EXPECT_TRUE(lane.tasks.empty());
}

TEST_F(ConversionsTest, LargeOnesLeaveTheLaneToOthersBetweenSteps) {
  conversions.add({0, 0}, narrowing(3 * kStep + 1), told("large"));
  int others = 0;
  for (int step = 0; step < 3; ++step) {
    EXPECT_TRUE(done.empty());
    EXPECT_EQ(lane.tasks.size(), 1u);
    lane.post([&] { ++others; });
    lane.run_one();
    lane.run_one();
    EXPECT_EQ(others, step + 1);
  }
  EXPECT_EQ(done, std::vector<std::string>{"large"});
  EXPECT_EQ(narrow, std::vector<std::uint16_t>(3 * kStep + 1, 0x3FC0));
}

TEST_F(ConversionsTest, AnUrgentOneOvertakesBetweenSteps) {
  wide.resize(10 * kStep);  // so that no vector moves while it is borrowed
  narrow.resize(10 * kStep);
  conversions.add({3, 9}, narrowing(10 * kStep), told("last layer"));
  conversions.add({3, 9}, narrowing(10), told("the same again"));
  conversions.add({3, 2}, narrowing(10), told("first layer"));
  conversions.add({2, 12}, narrowing(10), told("older"));
  EXPECT_TRUE(done.empty());
  lane.run();
  EXPECT_EQ(done, (std::vector<std::string>{"older", "first layer", "last layer", "the same again"}));
}

TEST_F(ConversionsTest, WithoutMemoryNothingIsDone) {
  conversions.add({0, 0}, {{.elements = 100 * kStep}, {.elements = 5}}, told("size-only"));
  EXPECT_EQ(done, std::vector<std::string>{"size-only"});
}

TEST_F(ConversionsTest, FailureEndsEachOnce) {
  wide.resize(3 * kStep);
  narrow.resize(3 * kStep);
  conversions.add({0, 1}, narrowing(3 * kStep), told("a"));
  conversions.add({0, 0}, narrowing(1), told("b"));
  conversions.fail(Error{ErrorCode::kAborted, "failed"});
  EXPECT_EQ(done, (std::vector<std::string>{"b failed", "a failed"}));
  lane.run();
  EXPECT_EQ(done.size(), 2u);
  conversions.add({1, 0}, narrowing(1), told("c"));
  EXPECT_EQ(done.back(), "c") << "what comes later is the caller's to refuse";
}

TEST_F(ConversionsTest, AStepOfOneThatIsGoneDoesNothing) {
  wide.resize(3 * kStep);
  narrow.resize(3 * kStep);
  {
    Conversions gone(lane);
    gone.add({0, 0}, narrowing(3 * kStep), told("never"));
  }
  lane.run();
  EXPECT_TRUE(done.empty());
}

}  // namespace
}  // namespace poseidon::session
