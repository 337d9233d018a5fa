#include "runtime/real/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include "runtime/real/lane.h"

namespace poseidon::runtime::real {
namespace {

TEST(Cores, AProcessAloneTakesTheLastOnesFirst) {
  const std::vector<int> allowed = {2, 3, 8, 9};
  EXPECT_EQ(core_for_lane(allowed, {}, 0), 9);
  EXPECT_EQ(core_for_lane(allowed, {}, 1), 8);
  EXPECT_EQ(core_for_lane(allowed, {}, 3), 2);
  EXPECT_EQ(core_for_lane(allowed, {}, 4), 9) << "more lanes than cores";
}

TEST(Cores, ProcessesOfAHostStayOutOfEachOthersShare) {
  const std::vector<int> allowed = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(core_for_lane(allowed, {0, 2}, 0), 3);
  EXPECT_EQ(core_for_lane(allowed, {0, 2}, 1), 2);
  EXPECT_EQ(core_for_lane(allowed, {1, 2}, 0), 7);
  EXPECT_EQ(core_for_lane(allowed, {1, 2}, 5), 6);
  // Of three the shares are 2, 3 and 3 cores.
  EXPECT_EQ(core_for_lane(allowed, {0, 3}, 0), 1);
  EXPECT_EQ(core_for_lane(allowed, {1, 3}, 0), 4);
  EXPECT_EQ(core_for_lane(allowed, {2, 3}, 0), 7);
}

TEST(Cores, WithMoreProcessesThanCoresSomeShareOne) {
  const std::vector<int> allowed = {4, 6};
  for (std::size_t rank = 0; rank < 5; ++rank) {
    const int core = core_for_lane(allowed, {rank, 5}, 1);
    EXPECT_TRUE(core == 4 || core == 6) << rank;
  }
  EXPECT_EQ(core_for_lane(allowed, {0, 5}, 0), 4);
  EXPECT_EQ(core_for_lane(allowed, {4, 5}, 0), 6);
}

TEST(Cores, APinnedLaneRunsOnItsCore) {
  const std::vector<int> allowed = allowed_cores();
  ASSERT_FALSE(allowed.empty());
  RealLane lane("pinned");
  ASSERT_TRUE(lane.pin(allowed.back()).ok());
  int core = -1;
  lane.run([&] { core = ::sched_getcpu(); });
  EXPECT_EQ(core, allowed.back());
  EXPECT_EQ(allowed_cores(), allowed) << "other threads go where they went";
  EXPECT_FALSE(lane.pin(CPU_SETSIZE - 1).ok()) << "no such core";
}

}  // namespace
}  // namespace poseidon::runtime::real
