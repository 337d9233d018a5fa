#include "runtime/lane_bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/sim/sim_world.h"

namespace poseidon::runtime {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<Endpoint> kTwoLanes = {{"a", 1, Lane{0}}, {"a", 2, Lane{1}}};

// Two members with two lanes each, and the coordinator, who has one.
struct LaneBundleTest : ::testing::Test {
  LaneBundleTest() {
    world.add(kCoordinator);
    for (const Member member : {Member{0}, Member{1}}) {
      world.add(member);
      world.add_lane(member);
    }
    for (std::size_t m = 0; m < 2; ++m) {
      bundles[m] = bundle_of(Member{static_cast<std::uint32_t>(m)});
      listen(m);
    }
  }
  std::unique_ptr<LaneBundle> bundle_of(Member member) {
    return std::make_unique<LaneBundle>(std::vector<LaneEnd>{{world.find(member, 0), world.find(member, 0)}, {world.find(member, 1), world.find(member, 1)}});
  }
  void listen(std::size_t m) {
    bundles[m]->set_listener({.on_up = [this, m](Member peer) { news[m].push_back("up " + std::to_string(index(peer))); },
                              .on_down = [this, m](Member peer, const Error& why) { news[m].push_back("down " + std::to_string(index(peer)) + " " + why.message); },
                              .on_alive = {}});
    world.run_for(1us);
  }
  void link() {
    bundles[1]->connect(Member{0}, kTwoLanes, 1s);
    world.run_for(1ms);
    ASSERT_THAT(news[0], ElementsAre("up 1"));
    ASSERT_THAT(news[1], ElementsAre("up 0"));
    news[0].clear();
    news[1].clear();
  }

  sim::SimWorld world{{}};
  std::unique_ptr<LaneBundle> bundles[2];
  std::vector<std::string> news[2];
};

TEST_F(LaneBundleTest, APeerIsUpWhenAllItsLanesAre) {
  // By hand, lane by lane, so that one comes much later.
  world.find(Member{1}, 0)->connect(Member{0}, {}, 1s);
  world.run_for(1ms);
  EXPECT_TRUE(news[0].empty());
  EXPECT_TRUE(news[1].empty());
  world.find(Member{1}, 1)->connect(Member{0}, {}, 1s);
  world.run_for(1ms);
  EXPECT_THAT(news[0], ElementsAre("up 1"));
  EXPECT_THAT(news[1], ElementsAre("up 0"));
}

TEST_F(LaneBundleTest, TheCoordinatorHasOneLane) {
  bundles[0]->connect(kCoordinator, {{"c", 1}}, 1s);
  world.run_for(1ms);
  EXPECT_THAT(news[0], ElementsAre("up " + std::to_string(index(kCoordinator))));
}

TEST_F(LaneBundleTest, ABrokenLaneIsALostPeerOnceAndItsOtherLinksAreClosed) {
  link();
  world.find(Member{1}, 1)->disconnect(Member{0});  // only member 0 hears of that
  world.run_for(10ms);
  EXPECT_THAT(news[0], ElementsAre(HasSubstr("down 1 lane 1: the connection was closed")));
  EXPECT_THAT(news[1], ElementsAre(HasSubstr("down 0 the connection was closed"))) << "by lane 0, which member 0 has closed then";
}

TEST_F(LaneBundleTest, ADeadMemberIsLostOnce) {
  link();
  world.kill(Member{1});
  world.run_for(10ms);
  EXPECT_EQ(news[0].size(), 1u);
}

TEST_F(LaneBundleTest, ALaneThatNobodyNamesCannotBeCalled) {
  bundles[1]->connect(Member{0}, {{"a", 1, Lane{0}}}, 1s);
  world.run_for(1ms);
  ASSERT_EQ(news[1].size(), 1u);
  EXPECT_THAT(news[1][0], HasSubstr("lane 1"));
}

TEST_F(LaneBundleTest, AnEpochReachesAllLanes) {
  link();
  bundles[1]->set_epoch(Epoch{2});
  bundles[0]->set_epoch(Epoch{2});
  world.run_for(1us);
  // A frame of an epoch that a lane had not heard of would wait there.
  for (std::size_t lane = 0; lane < 2; ++lane) {
    int arrived = 0;
    world.find(Member{0}, lane)->set_acceptor(wire::FrameType::kPush, [&](Member, const wire::PartHeader& part) -> Result<Sink> {
      return Sink{part.offset, part.offset, {}, [&](Member, const wire::PartHeader&) { ++arrived; }};
    });
    Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kPush});
    world.find(Member{1}, lane)->send({Member{0}}, std::move(frame), nullptr);
    world.run_for(1ms);
    EXPECT_EQ(arrived, 1) << "lane " << lane;
  }
}

TEST_F(LaneBundleTest, NothingIsToldAfterItIsGone) {
  link();
  world.kill(Member{1});
  world.run_for(1ms + 100ns);  // what lane 1 has heard may be on its way home
  bundles[0].reset();
  news[0].clear();
  world.run_for(10ms);
  EXPECT_TRUE(news[0].empty());
}

}  // namespace
}  // namespace poseidon::runtime
