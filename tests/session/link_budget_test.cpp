// Several send schedulers, one for each lane of a member, on one budget.
#include "session/link_budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "runtime/sim/sim_world.h"
#include "session/send_scheduler.h"
#include "support/hand_lane.h"
#include "support/seeds.h"

namespace poseidon::session {
namespace {

using namespace std::chrono_literals;
using runtime::SendClass;
using runtime::sim::SimMember;
using wire::FrameType;
using wire::kPieceBytes;
using wire::PartHeader;

TEST(LinkBudget, ClaimsOrderAsUrgenciesDo) {
  std::mt19937_64 random(1);
  const auto any = [&] {
    return runtime::Priority{random() % 3 == 0 ? random() % (std::uint64_t{1} << 37) : random() % 3, static_cast<std::uint32_t>(random() % 3 * 1000),
                             static_cast<SendClass>(random() % 4)};
  };
  for (int round = 0; round < 20'000; ++round) {
    const Urgency a = Urgency::of(any());
    const Urgency b = Urgency::of(any());
    const auto claim_a = LinkBudget::claim_of(a);
    const auto claim_b = LinkBudget::claim_of(b);
    ASSERT_LT(claim_a, LinkBudget::kNothing);
    const bool both_control = claim_a == 0 && claim_b == 0;
    if (!both_control) {
      ASSERT_EQ(a < b, claim_a < claim_b);
      ASSERT_EQ(a == b, claim_a == claim_b);
    }
  }
}

TEST(LinkBudget, GivesRoomUpToTheWindowAndTwoPiecesForEachPeerBesides) {
  runtime::sim::SimWorld world({});
  SimMember& lane = world.add(Member{0});
  LinkBudget budget(3 * kPieceBytes, {Member{0}, Member{1}, Member{2}}, {&lane, &lane});
  const std::size_t one = budget.slot_of(Member{1});
  const std::size_t two = budget.slot_of(Member{2});
  EXPECT_TRUE(budget.take_own(0, one, kPieceBytes));
  EXPECT_TRUE(budget.take_own(1, one, kPieceBytes));
  EXPECT_FALSE(budget.take_own(1, one, 1)) << "the two lanes have the peer's two pieces together";
  EXPECT_TRUE(budget.take_shared(0, one, kPieceBytes));
  EXPECT_FALSE(budget.take_shared(1, two, 1)) << "the window is full";
  EXPECT_TRUE(budget.take_own(1, two, 2 * kPieceBytes)) << "a peer's own pieces do not ask for the window";
  EXPECT_EQ(budget.bytes_in_flight(), 5 * kPieceBytes);
  EXPECT_TRUE(budget.take_own(0, two, 0)) << "nothing always finds room";
  budget.give_back(0, one, 2 * kPieceBytes);
  EXPECT_EQ(budget.own_room(one), kPieceBytes);
  EXPECT_EQ(budget.shared_room(), 0u);
  budget.give_back(1, two, 2 * kPieceBytes);
  EXPECT_EQ(budget.shared_room(), 2 * kPieceBytes);
  EXPECT_EQ(budget.bytes_in_flight_max(), 5 * kPieceBytes);
}

TEST(LinkBudget, WhoWaitsWithTheMoreUrgentGoesBefore) {
  runtime::sim::SimWorld world({});
  SimMember& lane = world.add(Member{0});
  LinkBudget budget(4 * kPieceBytes, {Member{1}, Member{2}}, {&lane, &lane});
  EXPECT_TRUE(budget.may_take_shared(0, 7));
  EXPECT_TRUE(budget.wait_for_window(1, 6));
  EXPECT_FALSE(budget.wait_for_window(1, 6)) << "nothing new";
  EXPECT_FALSE(budget.may_take_shared(0, 7));
  EXPECT_TRUE(budget.may_take_shared(0, 5));
  EXPECT_TRUE(budget.may_take_shared(0, 6)) << "equal, and as many bytes in flight";
  EXPECT_TRUE(budget.take_shared(0, 0, kPieceBytes));
  EXPECT_FALSE(budget.may_take_shared(0, 6)) << "equal, and it has more in flight";
  EXPECT_TRUE(budget.may_take_shared(1, 6)) << "no lane stands in its own way";
  EXPECT_FALSE(budget.may_take_own(0, 1, 7)) << "there is room in the window for the other lane";
  EXPECT_TRUE(budget.take_shared(0, 0, 3 * kPieceBytes));
  EXPECT_TRUE(budget.may_take_own(0, 1, 7)) << "there is none, so it is not in its way";
  budget.wait_for_peer(1, 1, 6);
  EXPECT_FALSE(budget.may_take_own(0, 1, 7)) << "it waits for the same peer";
  EXPECT_TRUE(budget.may_take_own(0, 0, 7)) << "but not for that one";
}

// Keeps what every lane sends, and takes no time for it.
class KeepingLane : public test::HandLane {
 public:
  void send(runtime::Destination to, runtime::Frame frame, runtime::SentFn on_sent) override {
    for (const PartHeader& part : frame.parts) {
      if (part.type != FrameType::kCredit) sent->emplace_back(to.peer, index(part.tensor));
    }
    if (on_sent) on_sent();
  }

  std::vector<std::pair<Member, std::uint32_t>>* sent = nullptr;  // of all lanes, in order
};

// One queue for all lanes, and a look at all of it for every piece: what several lanes together should do.
class OneQueue {
 public:
  explicit OneQueue(std::size_t window) : window_(window) {}
  struct Message {
    Member to;
    std::uint32_t tensor;
    std::size_t lane;
    std::size_t pieces;
  };
  // No two messages are equally urgent.
  void enqueue(const runtime::Priority& priority, const Message& message) { queue_.emplace(priority, message); }
  void credit(std::size_t lane, Member from, std::size_t pieces) {
    in_flight_[{lane, from}] -= pieces;
  }
  std::size_t in_flight(std::size_t lane, Member peer) { return in_flight_[{lane, peer}]; }

  std::vector<std::pair<Member, std::uint32_t>> pump() {
    std::vector<std::pair<Member, std::uint32_t>> sent;
    while (true) {
      const auto next = std::find_if(queue_.begin(), queue_.end(), [&](const auto& entry) {
        return to(entry.second.to) < 2 || (all() + 1) * kPieceBytes <= window_;
      });
      if (next == queue_.end()) return sent;
      Message& message = next->second;
      sent.emplace_back(message.to, message.tensor);
      ++in_flight_[{message.lane, message.to}];
      if (--message.pieces == 0) queue_.erase(next);
    }
  }

 private:
  std::size_t to(Member peer) const {
    std::size_t sum = 0;
    for (const auto& [key, pieces] : in_flight_) sum += key.second == peer ? pieces : 0;
    return sum;
  }
  std::size_t all() const {
    std::size_t sum = 0;
    for (const auto& [key, pieces] : in_flight_) sum += pieces;
    return sum;
  }
  std::size_t window_;
  std::map<runtime::Priority, Message> queue_;
  std::map<std::pair<std::size_t, Member>, std::size_t> in_flight_;
};

TEST(LanedSchedulers, SendInTheOrderOfOneQueue) {
  const std::vector<std::byte> memory(8 * kPieceBytes);
  for (const std::uint64_t seed : test::seeds(150)) {
    SCOPED_TRACE(test::replay(seed));
    std::mt19937_64 random(seed);
    const std::size_t window = 1 + random() % (8 * kPieceBytes);
    const std::size_t lanes = 2 + random() % 3;
    const std::uint32_t peers = 1 + static_cast<std::uint32_t>(random() % 5);
    std::vector<std::pair<Member, std::uint32_t>> sent;
    std::vector<KeepingLane> hands(lanes);
    std::vector<runtime::Runtime*> runtimes;
    for (KeepingLane& hand : hands) {
      hand.sent = &sent;
      runtimes.push_back(&hand);
    }
    std::vector<Member> members;
    for (std::uint32_t peer = 0; peer <= peers; ++peer) members.push_back(Member{peer});
    const auto budget = std::make_shared<LinkBudget>(window, members, runtimes);
    std::vector<std::unique_ptr<SendScheduler>> schedulers;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      schedulers.push_back(std::make_unique<SendScheduler>(
          hands[lane], hands[lane], SendSchedulerOptions{.window_bytes = window, .tensors = 0, .budget = budget, .lane = lane}));
    }
    OneQueue model(window);
    // Layers that have not been used yet, in any order: no two messages are equally urgent.
    std::vector<std::uint32_t> layers(400);
    std::iota(layers.begin(), layers.end(), 0u);
    std::shuffle(layers.begin(), layers.end(), random);
    for (int step = 0; step < 400; ++step) {
      const Member peer{1 + static_cast<std::uint32_t>(random() % peers)};
      const std::size_t lane = random() % lanes;
      if (random() % 2 == 0) {
        const std::size_t pieces = 1 + random() % 4;
        const runtime::Priority priority{random() % 2, layers[static_cast<std::size_t>(step)], static_cast<SendClass>(1 + random() % 3)};
        const auto tensor = static_cast<std::uint32_t>(step);
        model.enqueue(priority, {peer, tensor, lane, pieces});
        PartHeader part;
        part.type = FrameType::kPush;
        part.tensor = TensorId{tensor};
        schedulers[lane]->enqueue({.to = peer, .priority = priority, .part = part, .begin = 0,
                                   .source = runtime::Layout::contiguous({const_cast<std::byte*>(memory.data()), memory.size(), {}, 0}, 0,
                                                                         pieces * kPieceBytes),
                                   .hold = nullptr, .on_sent = nullptr});
      } else if (const std::size_t most = model.in_flight(lane, peer); most > 0) {
        const std::size_t pieces = 1 + random() % most;
        model.credit(lane, peer, pieces);
        hands[lane].receipt(peer, {}, static_cast<std::uint32_t>(pieces * kPieceBytes));
      }
      // Whatever the order in which the lanes come to run.
      while (std::any_of(hands.begin(), hands.end(), [](const KeepingLane& hand) { return !hand.tasks.empty(); })) {
        hands[random() % lanes].run_one();
      }
      ASSERT_EQ(std::exchange(sent, {}), model.pump()) << "step " << step;
    }
  }
}

// Two members with two lanes each in virtual time: the first sends, the other one reports what it receives.
struct TwoLanes {
  explicit TwoLanes(bool one_budget) {
    for (const Member member : {kSender, kReceiver}) {
      world.add(member);
      world.add_lane(member);
    }
    const std::vector<Member> members = {kSender, kReceiver};
    for (const Member member : members) {
      std::vector<runtime::Runtime*> lanes = {world.find(member, 0), world.find(member, 1)};
      const auto budget = one_budget ? std::make_shared<LinkBudget>(kWindow, members, lanes) : nullptr;
      for (std::size_t lane = 0; lane < 2; ++lane) {
        SimMember& end = *world.find(member, lane);
        if (member == kReceiver) end.connect(kSender, {}, 1s);
        schedulers[index(member)].push_back(std::make_unique<SendScheduler>(
            end, end, SendSchedulerOptions{.window_bytes = kWindow, .tensors = 20, .budget = budget, .lane = lane}));
        end.set_acceptor(FrameType::kPush, [this](Member, const PartHeader& part) -> Result<runtime::Sink> {
          return runtime::Sink{part.offset, part.offset + part.bytes,
                               runtime::Layout::contiguous({target.data(), target.size(), {}, 0}, 0, part.bytes),
                               [this](Member, const PartHeader& come) { arrived.push_back(index(come.tensor)); }};
        });
      }
    }
    world.run_for(1ms);  // the links are up
  }
  void send(std::size_t lane, std::uint32_t tensor, std::size_t pieces, std::uint32_t layer) {
    PartHeader part;
    part.type = FrameType::kPush;
    part.tensor = TensorId{tensor};
    schedulers[index(kSender)][lane]->enqueue({.to = kReceiver, .priority = {0, layer, SendClass::kPush}, .part = part, .begin = 0,
                                               .source = runtime::Layout::contiguous({source.data(), source.size(), {}, 0}, 0, pieces * kPieceBytes),
                                               .hold = nullptr, .on_sent = nullptr});
  }
  // How many pieces of `tensor` came before the last of `other`.
  std::size_t before_the_last(std::uint32_t tensor, std::uint32_t other) const {
    const auto last = std::find(arrived.rbegin(), arrived.rend(), other).base();
    return static_cast<std::size_t>(std::count(arrived.begin(), last, tensor));
  }

  static constexpr Member kSender{0};
  static constexpr Member kReceiver{1};
  static constexpr std::size_t kWindow = 4 * kPieceBytes;
  runtime::sim::SimWorld world{{.bytes_per_second = 1.25e8, .latency = 20us}};
  std::vector<std::byte> source = std::vector<std::byte>(100 * kPieceBytes);
  std::vector<std::byte> target = std::vector<std::byte>(kPieceBytes);
  std::vector<std::uint32_t> arrived;  // tensors, piece by piece
  std::vector<std::unique_ptr<SendScheduler>> schedulers[2];
};

TEST(LanedSchedulers, AnUrgentTensorOvertakesAnotherLanesQueueWhenTheBudgetIsUsedUp) {
  // A piece takes half a millisecond. After 5 ms some ten of lane 0's eighty pieces are over, and the window is full of them.
  TwoLanes shared(true);
  shared.send(0, 9, 80, 9);
  shared.world.run_for(5ms);
  const std::size_t gone = shared.arrived.size();
  ASSERT_GT(gone, 4u);
  shared.send(1, 1, 12, 1);
  shared.world.run_for(100ms);
  ASSERT_EQ(shared.arrived.size(), 92u) << "nothing is left behind";
  // Only what was in flight comes before it: the window, as the peer's own two pieces count to it.
  EXPECT_LE(shared.before_the_last(9, 1), gone + 4);

  // Two lanes that know nothing of each other share the link fairly instead.
  TwoLanes apart(false);
  apart.send(0, 9, 80, 9);
  apart.world.run_for(5ms);
  apart.send(1, 1, 12, 1);
  apart.world.run_for(100ms);
  EXPECT_GT(apart.before_the_last(9, 1), gone + 8) << "or this test shows nothing";
}

TEST(LanedSchedulers, EquallyUrgentLanesShareTheWindow) {
  TwoLanes lanes(true);
  lanes.send(0, 1, 40, 3);
  lanes.world.run_for(5ms);
  const std::size_t alone = lanes.arrived.size();
  lanes.send(1, 2, 20, 3);
  lanes.world.run_for(100ms);
  ASSERT_EQ(lanes.arrived.size(), 60u);
  // From then on they take turns, up to what the first had in flight.
  EXPECT_NEAR(static_cast<double>(lanes.before_the_last(1, 2) - alone), 20.0, 5.0);
}

}  // namespace
}  // namespace poseidon::session
