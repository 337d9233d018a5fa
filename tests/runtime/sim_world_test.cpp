#include "runtime/sim/sim_world.h"

#include <gtest/gtest.h>

#include <map>

namespace poseidon::runtime::sim {
namespace {

using namespace std::chrono_literals;
using wire::FrameType;

constexpr Member kA{1};
constexpr Member kB{2};

// Two members with a link; B notes when bodies arrive.
struct Pair {
  explicit Pair(SimOptions options = {}) : world(options), a(world.add(kA)), b(world.add(kB)) {
    for (SimMember* member : {&a, &b}) {
      member->set_listener({.on_up = {}, .on_down = [this, member](Member, const Error&) { downs.push_back(member->self()); }, .on_alive = {}});
      for (const FrameType type : {FrameType::kControl, FrameType::kGate}) {
        member->set_body_handler(type, [this](Member, const wire::FrameHeader& header, std::vector<std::byte>) {
          arrivals.emplace_back(header.part.iteration, world.now());
        });
      }
    }
    a.connect(kB, {}, 1s);
    world.run_for(1s);
  }
  void send(std::uint64_t number, std::size_t bytes, SentFn on_sent = {}, FrameType type = FrameType::kControl) {
    payload.resize(std::max(payload.size(), bytes));
    Frame frame;
    frame.parts.push_back({.type = type, .iteration = number, .bytes = static_cast<std::uint32_t>(bytes)});
    frame.payload.push_back({{payload.data(), payload.size(), {}, 0}, 0, bytes});
    a.send({kB, Lane{0}}, std::move(frame), std::move(on_sent));
  }
  SimWorld world;
  SimMember& a;
  SimMember& b;
  std::vector<std::byte> payload;
  std::vector<std::pair<std::uint64_t, Time>> arrivals;
  std::vector<Member> downs;
};

TEST(SimWorld, AFrameTakesItsBytesAtTheRateAndTheLatency) {
  SimOptions options;
  options.bytes_per_second = 1e6;
  options.latency = 3ms;
  Pair pair(options);
  const Time start = pair.world.now();
  Time sent{};
  pair.send(1, 100'000 - wire::kHeaderBytes, [&] { sent = pair.world.now(); });
  pair.send(2, 50'000 - wire::kHeaderBytes);
  pair.world.run_for(1s);
  EXPECT_EQ(sent - start, 100ms);
  ASSERT_EQ(pair.arrivals.size(), 2u);
  EXPECT_EQ(pair.arrivals[0].second - start, 103ms);
  EXPECT_EQ(pair.arrivals[1].second - start, 153ms) << "after the first, whose bytes stand before it";
}

TEST(SimWorld, AFrameTakesItsTimeAtTheSlowerOfTwoLinks) {
  // 100,000 bytes: 100 ms at 1 MB/s, 10 ms at 10 MB/s; the second frame waits for the first on the slow link, wherever that is.
  for (const Member slow : {kA, kB}) {
    SimOptions options;
    options.bytes_per_second = 1e7;
    options.bytes_per_second_of = {{slow, 1e6}};
    options.latency = 3ms;
    Pair pair(options);
    const Time start = pair.world.now();
    for (const std::uint64_t number : {1, 2}) pair.send(number, 100'000 - wire::kHeaderBytes);
    pair.world.run_for(1s);
    ASSERT_EQ(pair.arrivals.size(), 2u);
    EXPECT_EQ(pair.arrivals[0].second - start, 103ms);
    EXPECT_EQ(pair.arrivals[1].second - start, 203ms);
  }
}

// 100,000 bytes to each of two peers: 100 ms each at 1 MB/s.
TEST(SimWorld, FramesToDifferentPeersLeaveOneAfterTheOtherOrSideBySide) {
  for (const bool interleave : {false, true}) {
    SimOptions options;
    options.bytes_per_second = 1e6;
    options.latency = 3ms;
    options.interleave = interleave;
    SimWorld world(options);
    std::map<Member, Time> arrivals;
    std::map<Member, Time> sent;
    SimMember& a = world.add(kA);
    const std::vector<std::byte> payload(100'000 - wire::kHeaderBytes);
    for (const Member peer : {kB, Member{3}}) {
      SimMember& other = world.add(peer);
      other.set_body_handler(FrameType::kControl, [&, peer](Member, const wire::FrameHeader&, std::vector<std::byte>) { arrivals[peer] = world.now(); });
      a.connect(peer, {}, 1s);
    }
    world.run_for(1s);
    const Time start = world.now();
    for (const Member peer : {kB, Member{3}}) {
      Frame frame;
      frame.parts.push_back({.type = FrameType::kControl, .bytes = static_cast<std::uint32_t>(payload.size())});
      frame.payload.push_back({{const_cast<std::byte*>(payload.data()), payload.size(), {}, 0}, 0, payload.size()});
      a.send({peer, Lane{0}}, std::move(frame), [&, peer] { sent[peer] = world.now(); });
    }
    world.run_for(1s);
    EXPECT_EQ(sent[kB] - start, interleave ? 200ms : 100ms);
    EXPECT_EQ(sent[Member{3}] - start, 200ms);
    EXPECT_EQ(arrivals[kB] - start, interleave ? 203ms : 103ms);
    EXPECT_EQ(arrivals[Member{3}] - start, 203ms);
  }
}

TEST(SimWorld, KeepsTheOrderOfAPairUnlessToldToShuffleAndThatOfControlAlways) {
  for (const FrameType type : {FrameType::kControl, FrameType::kGate}) {
    for (const bool shuffle : {false, true}) {
      SimOptions options;
      options.seed = 5;
      options.task_jitter_max = 50us;
      options.shuffle_delay_max = shuffle ? Duration(10ms) : Duration(0);
      Pair pair(options);
      for (std::uint64_t i = 0; i < 50; ++i) pair.send(i, 100, {}, type);
      pair.world.run_for(1s);
      ASSERT_EQ(pair.arrivals.size(), 50u);
      const bool in_order = std::is_sorted(pair.arrivals.begin(), pair.arrivals.end(),
                                           [](const auto& x, const auto& y) { return x.first < y.first; });
      EXPECT_EQ(in_order, !shuffle || type == FrameType::kControl);
    }
  }
}

TEST(SimWorld, SizeOnlyFramesTakeTheirTimeToo) {
  SimOptions options;
  options.bytes_per_second = 1e6;
  options.latency = 3ms;
  Pair pair(options);
  const Time start = pair.world.now();
  std::vector<Time> times;
  pair.b.set_receipt_handler([&](Member, std::span<const wire::PartHeader>, std::uint32_t) { times.push_back(pair.world.now()); });
  const auto send_nothing = [&](std::uint32_t bytes) {
    Frame frame;
    frame.parts.push_back({.type = FrameType::kControl, .bytes = bytes});
    pair.a.send({kB, Lane{0}}, std::move(frame), nullptr);
  };
  send_nothing(100'000 - wire::kHeaderBytes);
  pair.send(2, 50'000 - wire::kHeaderBytes);
  send_nothing(10'000 - wire::kHeaderBytes);
  pair.world.run_for(1s);
  EXPECT_EQ(times, (std::vector<Time>{start + 103ms, start + 153ms, start + 163ms})) << "in the order of sending";
}

TEST(SimWorld, AFrozenMembersFramesLeaveWhenItGoesOn) {
  SimOptions options;
  options.bytes_per_second = 1e6;
  options.latency = 3ms;
  Pair pair(options);
  const Time start = pair.world.now();
  int sent = 0;
  pair.send(1, 50'000, [&] { ++sent; });
  pair.world.freeze(kA);
  pair.world.run_for(10s);
  EXPECT_EQ(sent, 0);
  EXPECT_TRUE(pair.arrivals.empty());
  pair.world.resume(kA);
  pair.world.run_for(1s);
  EXPECT_EQ(sent, 1);
  ASSERT_EQ(pair.arrivals.size(), 1u);
  EXPECT_EQ(pair.arrivals[0].second, start + 10s + 3ms);
}

TEST(SimWorld, ADeadMembersPeersSeeTheConnectionClose) {
  Pair pair;
  pair.world.kill(kA);
  pair.world.run_for(10ms);
  EXPECT_EQ(pair.downs, std::vector<Member>{kB});
}

TEST(SimWorld, ACutCableSaysNothing) {
  Pair pair;
  pair.world.cut(kB, kA);
  pair.send(1, 10);
  pair.world.run_for(10s);
  EXPECT_TRUE(pair.arrivals.empty());
  EXPECT_TRUE(pair.downs.empty());
  pair.world.heal(kA, kB);
  pair.send(2, 10);
  pair.world.run_for(1s);
  EXPECT_EQ(pair.arrivals.size(), 1u);
}

TEST(SimWorld, AFrozenMemberGoesOnWhereItStopped) {
  Pair pair;
  pair.world.freeze(kB);
  pair.send(1, 10);
  pair.world.run_for(10s);
  EXPECT_TRUE(pair.arrivals.empty());
  pair.world.resume(kB);
  pair.world.run_for(1s);
  EXPECT_EQ(pair.arrivals.size(), 1u);
}

TEST(SimWorld, ACancelledTimerDoesNotRun) {
  Pair pair;
  int ran = 0;
  const TimerId timer = pair.a.after(5ms, [&] { ++ran; });
  pair.a.after(1ms, [&] { pair.a.cancel(timer); });
  pair.a.after(6ms, [&] { ran += 10; });
  pair.world.run_for(1s);
  EXPECT_EQ(ran, 10);
}

TEST(SimWorld, FramesOfTheFutureWaitAndThoseOfThePastAreDropped) {
  Pair pair;
  std::vector<std::byte> memory(8);
  std::vector<std::uint64_t> landed;
  pair.b.set_acceptor(FrameType::kPush, [&](Member, const wire::PartHeader&) -> Result<Sink> {
    return Sink{0, 8, Layout::contiguous({memory.data(), 8, {}, 0}, 0, 8),
                [&landed](Member, const wire::PartHeader& p) { landed.push_back(p.iteration); }};
  });
  const auto push = [&](std::uint64_t iteration) {
    Frame frame;
    frame.parts.push_back({.type = FrameType::kPush, .iteration = iteration, .bytes = 8});
    frame.payload.push_back({{memory.data(), 8, {}, 0}, 0, 8});
    pair.a.send({kB, Lane{0}}, std::move(frame), nullptr);
  };
  pair.a.set_epoch(Epoch{1});
  pair.b.set_epoch(Epoch{1});
  push(1);
  pair.world.run_for(1s);
  pair.a.set_epoch(Epoch{2});
  push(2);
  pair.world.run_for(1s);
  EXPECT_EQ(landed, (std::vector<std::uint64_t>{1})) << "B has not heard of epoch 2 yet";
  pair.b.set_epoch(Epoch{2});
  EXPECT_EQ(landed, (std::vector<std::uint64_t>{1, 2}));
  pair.b.set_epoch(Epoch{3});
  push(3);
  pair.world.run_for(1s);
  EXPECT_EQ(landed, (std::vector<std::uint64_t>{1, 2})) << "epoch 2 is over";
}

}  // namespace
}  // namespace poseidon::runtime::sim
