#include "session/value_broadcast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/sim/sim_world.h"
#include "session/send_scheduler.h"
#include "support/seeds.h"

namespace poseidon::session {
namespace {

using Values = std::vector<std::vector<std::byte>>;  // by tensor

// Some workers, of which rank 0 has values; frames may overtake each other.
class Swarm {
 public:
  Swarm(std::size_t workers, const std::vector<std::size_t>& sizes, std::uint64_t seed)
      : world_({.seed = seed, .shuffle_delay_max = std::chrono::microseconds(seed % 2 == 0 ? 0 : 300)}) {
    std::vector<Member> members;
    std::vector<std::uint32_t> places;
    for (std::size_t t = 0; t < sizes.size(); ++t) places.push_back(static_cast<std::uint32_t>(t));
    for (std::size_t rank = 0; rank < workers; ++rank) members.push_back(Member{static_cast<std::uint32_t>(10 + rank)});
    std::vector<runtime::sim::SimMember*> lanes;
    for (const Member member : members) lanes.push_back(&world_.add(member));
    for (std::size_t a = 0; a < workers; ++a) {
      for (std::size_t b = 0; b < a; ++b) lanes[a]->connect(members[b], {}, std::chrono::seconds(1));
    }
    world_.run_for(std::chrono::milliseconds(10));
    // Rank 0 last: the others know what will come.
    for (std::size_t rank = workers; rank-- > 0;) {
      Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
      for (std::size_t t = 0; t < sizes.size(); ++t) {
        worker.values.emplace_back(sizes[t]);
        for (std::size_t i = 0; i < sizes[t]; ++i) worker.values[t][i] = rank == 0 ? byte_of(t, i) : std::byte{0xEE};
      }
      runtime::sim::SimMember& lane = *lanes[rank];
      worker.scheduler = std::make_unique<SendScheduler>(lane, lane, SendSchedulerOptions{.tensors = sizes.size()});
      worker.broadcast = std::make_shared<ValueBroadcast>(lane, *worker.scheduler, members, Rank{static_cast<std::int32_t>(rank)});
      std::vector<TensorView> views;
      for (std::vector<std::byte>& value : worker.values) views.push_back({value.data(), value.size(), DType::kFloat32, {}});
      worker.broadcast->start(views, places, [&worker] { ++worker.ends; });
    }
    std::reverse(workers_.begin(), workers_.end());
  }

  bool run() {
    return world_.run_until([&] { return std::all_of(workers_.begin(), workers_.end(), [](const auto& w) { return w->ends > 0; }); },
                            world_.now() + std::chrono::seconds(100));
  }
  static std::byte byte_of(std::size_t tensor, std::size_t place) { return static_cast<std::byte>((tensor * 31 + place * 7 + place / 251) % 251); }

  struct Worker {
    Values values;
    std::unique_ptr<SendScheduler> scheduler;
    std::shared_ptr<ValueBroadcast> broadcast;
    int ends = 0;
  };
  const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }
  std::uint64_t sent(std::size_t rank) const {
    std::uint64_t bytes = 0;
    for (const TensorBytes& tensor : workers_[rank]->scheduler->tensor_bytes()) bytes += tensor.sent;
    return bytes;
  }

 private:
  runtime::sim::SimWorld world_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

TEST(ValueBroadcastTest, EverybodyEndsOnceWithRankZerosValues) {
  for (const std::uint64_t seed : test::seeds(20)) {
    for (const std::size_t workers : {1, 2, 3, 4, 7}) {
      const std::vector<std::size_t> sizes = {0, 1, 4095, 4096 * (workers - 1), 4096 * workers + 1, 100'003, (workers << 20) + 13, 3'456'789};
      Swarm swarm(workers, sizes, seed);
      ASSERT_TRUE(swarm.run()) << workers << " workers, seed " << seed;
      for (const auto& worker : swarm.workers()) {
        EXPECT_EQ(worker->ends, 1);
        EXPECT_EQ(worker->values, swarm.workers()[0]->values) << workers << " workers, seed " << seed;
      }
      EXPECT_EQ(swarm.workers()[0]->values.back()[1'234'567], Swarm::byte_of(sizes.size() - 1, 1'234'567));
    }
  }
}

TEST(ValueBroadcastTest, NoLinkCarriesALargeTensorTwice) {
  constexpr std::size_t kBytes = 20 << 20;
  for (const std::size_t workers : {2, 3, 5, 8}) {
    Swarm swarm(workers, {kBytes}, 2);
    ASSERT_TRUE(swarm.run());
    EXPECT_EQ(swarm.sent(0), kBytes);
    std::uint64_t all = 0;
    for (std::size_t rank = 0; rank < workers; ++rank) {
      EXPECT_LE(swarm.sent(rank), kBytes);
      all += swarm.sent(rank);
    }
    EXPECT_EQ(all, kBytes * (workers - 1));  // nobody receives a byte twice
  }
}

}  // namespace
}  // namespace poseidon::session
