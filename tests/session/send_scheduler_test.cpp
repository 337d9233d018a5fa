#include "session/send_scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "support/seeds.h"

namespace poseidon::session {
namespace {

using runtime::Frame;
using runtime::SendClass;
using wire::FrameType;
using wire::kPieceBytes;
using wire::PartHeader;

// A runtime whose tasks run when the test says, and a transport that keeps every frame and takes no time.
class Bench : public runtime::Runtime, public runtime::Transport {
 public:
  runtime::Time now() const override { return {}; }
  void post(runtime::Task task) override { tasks.push_back(std::move(task)); }
  runtime::TimerId after(runtime::Duration, runtime::Task) override { return {}; }
  void cancel(runtime::TimerId) override {}
  Member self() const override { return Member{0}; }
  void set_listener(runtime::PeerListener) override {}
  void connect(Member, const std::vector<runtime::Endpoint>&, runtime::Duration) override {}
  void disconnect(Member) override {}
  void set_epoch(Epoch) override {}
  void send(runtime::Destination to, Frame frame, runtime::SentFn on_sent) override {
    sent.emplace_back(to.peer, std::move(frame));
    if (on_sent) on_sent();
  }
  runtime::SinkId expect(Member, const runtime::Tag&, runtime::Sink) override { return {}; }
  void revoke(runtime::SinkId) override {}
  void set_acceptor(FrameType, runtime::AcceptFn) override {}
  void set_body_handler(FrameType, runtime::BodyFn) override {}
  void set_receipt_handler(runtime::ReceiptFn handle) override { receipt = std::move(handle); }
  runtime::Region register_memory(const runtime::Region& region) override { return region; }
  runtime::LinkBytes link_bytes(Member) const override { return {}; }

  void run() {
    while (!tasks.empty()) {
      const runtime::Task task = std::move(tasks.front());
      tasks.pop_front();
      task();
    }
  }
  // The peer reports that it has received so much.
  void credit(Member from, std::uint32_t bytes) {
    receipt(from, {}, bytes);
    run();
  }
  // What has left since the last call, as tensor numbers, in order.
  std::vector<std::uint32_t> tensors() {
    std::vector<std::uint32_t> list;
    for (const auto& [peer, frame] : sent) {
      for (const PartHeader& part : frame.parts) {
        if (part.type != FrameType::kCredit) list.push_back(index(part.tensor));
      }
    }
    sent.clear();
    return list;
  }

  std::deque<runtime::Task> tasks;
  std::vector<std::pair<Member, Frame>> sent;
  runtime::ReceiptFn receipt;
};

struct SchedulerTest : ::testing::Test {
  runtime::SendRequest request(Member to, std::uint32_t tensor, std::size_t bytes, std::uint32_t layer, SendClass send_class = SendClass::kPush,
                               Iteration iteration = 0) {
    PartHeader part;
    part.type = send_class == SendClass::kSum ? FrameType::kSum : FrameType::kPush;
    part.tensor = TensorId{tensor};
    return {.to = to, .priority = {iteration, layer, send_class}, .part = part, .begin = 0,
            .source = runtime::Layout::contiguous({memory.data(), memory.size(), {}, 0}, 0, bytes), .hold = nullptr, .on_sent = nullptr};
  }
  void start(std::size_t window) { scheduler = std::make_unique<SendScheduler>(bench, bench, SendSchedulerOptions{.window_bytes = window, .tensors = 20}); }

  Bench bench;
  std::vector<std::byte> memory = std::vector<std::byte>(10 * kPieceBytes);
  std::unique_ptr<SendScheduler> scheduler;
};

constexpr Member kA{1};
constexpr Member kB{2};

TEST_F(SchedulerTest, SendsTheFirstLayerBeforeQueuedLaterOnes) {
  start(kPieceBytes);
  scheduler->enqueue(request(kA, 9, 3 * kPieceBytes, 9));
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{9, 9})) << "a peer may always have two pieces";
  scheduler->enqueue(request(kA, 1, 2 * kPieceBytes, 1));
  bench.run();
  EXPECT_TRUE(bench.tensors().empty());
  std::vector<std::uint32_t> order;
  for (int i = 0; i < 3; ++i) {
    bench.credit(kA, kPieceBytes);
    for (const std::uint32_t t : bench.tensors()) order.push_back(t);
  }
  EXPECT_EQ(order, (std::vector<std::uint32_t>{1, 1, 9})) << "it overtakes what has not left";
}

TEST_F(SchedulerTest, SendsSumsBeforePushesOfTheSameLayerAndOldIterationsFirst) {
  start(std::size_t{1} << 30);
  scheduler->enqueue(request(kA, 1, kPieceBytes, 3, SendClass::kPush, 5));
  scheduler->enqueue(request(kA, 2, kPieceBytes, 3, SendClass::kSum, 5));
  scheduler->enqueue(request(kA, 3, kPieceBytes, 7, SendClass::kPush, 4));
  scheduler->enqueue(request(kA, 4, kPieceBytes, 2, SendClass::kPush, 5));
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{3, 4, 2, 1}));
}

TEST_F(SchedulerTest, SendsFactorsBeforeSumsOfTheSameLayer) {
  start(std::size_t{1} << 30);
  scheduler->enqueue(request(kA, 1, kPieceBytes, 3, SendClass::kSum));
  scheduler->enqueue(request(kB, 2, kPieceBytes, 3, SendClass::kFactor));
  scheduler->enqueue(request(kA, 3, kPieceBytes, 2, SendClass::kPush));
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{3, 2, 1}));
}

TEST_F(SchedulerTest, ServesEquallyUrgentPeersInTurn) {
  start(std::size_t{1} << 30);
  scheduler->enqueue(request(kA, 1, 3 * kPieceBytes, 1));
  scheduler->enqueue(request(kB, 2, 3 * kPieceBytes, 1));
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{1, 2, 1, 2, 1, 2}));
}

TEST_F(SchedulerTest, APeerThatReturnsNoCreditDoesNotHoldUpAnother) {
  start(2 * kPieceBytes);
  scheduler->enqueue(request(kA, 1, 5 * kPieceBytes, 1));
  bench.run();
  EXPECT_EQ(bench.tensors().size(), 2u) << "the window is full";
  scheduler->enqueue(request(kB, 2, 3 * kPieceBytes, 2));
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{2, 2})) << "two pieces each are always allowed";
  bench.credit(kB, kPieceBytes);
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{2}));
}

TEST_F(SchedulerTest, SmallPartsForOnePeerShareAFrame) {
  start(std::size_t{1} << 30);
  for (std::uint32_t t = 1; t <= 5; ++t) scheduler->enqueue(request(t == 3 ? kB : kA, t, 100 * t, t));
  bench.run();
  ASSERT_EQ(bench.sent.size(), 2u);
  EXPECT_EQ(bench.sent[0].first, kA);
  EXPECT_EQ(bench.sent[0].second.parts.size(), 4u);
  std::size_t payload = 0;
  for (const runtime::Slice& slice : bench.sent[0].second.payload) payload += slice.bytes;
  EXPECT_EQ(payload, 100u + 200 + 400 + 500);
}

TEST_F(SchedulerTest, CreditIsReturnedAloneOrOnTheNextFrame) {
  start(std::size_t{1} << 30);
  const std::vector<PartHeader> parts = {{.type = FrameType::kSum, .tensor = TensorId{3}, .bytes = 700}};
  bench.receipt(kA, parts, 0);
  bench.run();
  ASSERT_EQ(bench.sent.size(), 1u);
  EXPECT_EQ(bench.sent[0].second.parts[0].type, FrameType::kCredit);
  EXPECT_EQ(bench.sent[0].second.credit, 700u);
  bench.sent.clear();
  bench.receipt(kA, parts, 0);
  scheduler->enqueue(request(kA, 1, 10, 1));
  bench.run();
  ASSERT_EQ(bench.sent.size(), 1u) << "no frame of its own is needed";
  EXPECT_EQ(bench.sent[0].second.credit, 700u);
  EXPECT_EQ(scheduler->tensor_bytes()[3].received, 1400u);
  EXPECT_EQ(scheduler->tensor_bytes()[1].sent, 10u);
}

TEST_F(SchedulerTest, AmongManyPeersCreditWaitsForAFrameThatGoesAnyway) {
  start(kPieceBytes);
  const auto receive = [&](std::uint32_t peer, std::uint32_t bytes) {
    const PartHeader part{.type = FrameType::kPush, .tensor = TensorId{1}, .bytes = bytes};
    bench.receipt(Member{peer}, std::span(&part, 1), 0);
    bench.run();
    return std::exchange(bench.sent, {});
  };
  for (std::uint32_t peer = 1; peer <= 64; ++peer) EXPECT_EQ(receive(peer, 100).size(), 1u) << "the " << peer << "th returns it at once";
  EXPECT_TRUE(receive(65, 100).empty());
  EXPECT_TRUE(receive(65, kPieceBytes - 100).empty()) << "a piece in all";
  const auto frames = receive(65, 1);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].second.credit, kPieceBytes + 1);
  EXPECT_TRUE(receive(7, 300).empty());
  scheduler->enqueue(request(Member{7}, 1, 10, 1));
  bench.run();
  ASSERT_EQ(bench.sent.size(), 1u);
  EXPECT_EQ(bench.sent[0].second.credit, 300u);
}

TEST_F(SchedulerTest, WhatManyPeersKeepOfTheCreditHoldsNobodyUp) {
  // All 100 peers owe the credit for a piece, and the window is full: each gets its next piece all the same, and no more.
  start(4 * kPieceBytes);
  for (std::uint32_t peer = 1; peer <= 100; ++peer) scheduler->enqueue(request(Member{peer}, peer % 20, kPieceBytes, 1));
  bench.run();
  EXPECT_EQ(bench.tensors().size(), 100u);
  for (std::uint32_t peer = 1; peer <= 100; ++peer) scheduler->enqueue(request(Member{peer}, peer % 20, 3 * kPieceBytes, 1));
  bench.run();
  EXPECT_EQ(bench.tensors().size(), 100u);
}

TEST_F(SchedulerTest, HoldIsReleasedAndTheSenderToldWhenTheLastPieceHasLeft) {
  start(kPieceBytes);
  int told = 0;
  auto hold = std::make_shared<int>(1);
  const std::weak_ptr<int> held = hold;
  runtime::SendRequest three_pieces = request(kA, 1, 3 * kPieceBytes, 1);
  three_pieces.hold = std::move(hold);
  three_pieces.on_sent = [&] { ++told; };
  scheduler->enqueue(std::move(three_pieces));
  bench.run();
  EXPECT_EQ(told, 0);
  EXPECT_FALSE(held.expired());
  bench.credit(kA, kPieceBytes);
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(held.expired());
  EXPECT_TRUE(scheduler->idle());
}

TEST_F(SchedulerTest, AMessageWithoutBytesIsSentAsOnePart) {
  start(kPieceBytes);
  scheduler->enqueue(request(kA, 4, 0, 1));
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{4}));
}

TEST_F(SchedulerTest, ForgettingAPeerGivesItsShareOfTheWindowBack) {
  start(2 * kPieceBytes);
  scheduler->enqueue(request(kA, 1, 5 * kPieceBytes, 1));
  bench.run();
  scheduler->enqueue(request(kB, 2, 2 * kPieceBytes, 2));
  scheduler->forget(kA);
  bench.run();
  EXPECT_EQ(bench.tensors(), (std::vector<std::uint32_t>{1, 1, 2, 2}));
}

TEST_F(SchedulerTest, MoreCreditThanWasSentChangesNothing) {
  start(kPieceBytes);
  bench.credit(kA, 1'000'000);
  EXPECT_EQ(scheduler->bytes_in_flight(), 0u);
}

// The rule of send_scheduler.h by a look at all peers for every frame: small, slow, and another way than the scheduler's.
class SlowScheduler {
 public:
  explicit SlowScheduler(std::size_t window) : window_(window) {}
  void enqueue(const runtime::SendRequest& request) {
    peers_[request.to].queue.emplace(std::pair{request.priority, sequence_++},
                                     Message{index(request.part.tensor), request.source.bytes()});
  }
  void credit(Member from, std::size_t bytes) {
    peers_[from].in_flight -= bytes;
    in_flight_ -= bytes;
  }
  void forget(Member member) {
    in_flight_ -= peers_[member].in_flight;
    peers_.erase(member);
  }
  std::size_t in_flight(Member member) { return peers_[member].in_flight; }

  struct Sent {
    Member to;
    std::vector<std::pair<std::uint32_t, std::size_t>> parts;  // tensor and bytes
    friend bool operator==(const Sent&, const Sent&) = default;
  };
  std::vector<Sent> pump() {
    std::vector<Sent> frames;
    while (true) {
      const auto best = most_urgent();
      if (best == peers_.end()) return frames;
      Peer& peer = best->second;
      const std::size_t room = std::min(kPieceBytes, allowance(peer));
      std::size_t total = 0;
      Sent frame{best->first, {}};
      do {
        const auto first = peer.queue.begin();
        const std::size_t bytes = std::min(kPieceBytes, first->second.bytes_left);
        frame.parts.emplace_back(first->second.tensor, bytes);
        total += bytes;
        first->second.bytes_left -= bytes;
        if (first->second.bytes_left == 0) peer.queue.erase(first);
      } while (frame.parts.front().second <= 16 * 1024 && !peer.queue.empty() && next(peer) <= 16 * 1024 &&
               total + next(peer) <= room && frame.parts.size() < wire::kPartsMax);
      peer.in_flight += total;
      in_flight_ += total;
      peer.served = turn_++;
      frames.push_back(std::move(frame));
    }
  }

 private:
  struct Message {
    std::uint32_t tensor;
    std::size_t bytes_left;
  };
  struct Peer {
    std::map<std::pair<runtime::Priority, std::uint64_t>, Message> queue;
    std::size_t in_flight = 0;
    std::uint64_t served = 0;
  };
  using Peers = std::map<Member, Peer>;

  static std::size_t next(const Peer& peer) { return std::min(kPieceBytes, peer.queue.begin()->second.bytes_left); }
  std::size_t allowance(const Peer& peer) const {
    return std::max(2 * kPieceBytes - std::min(2 * kPieceBytes, peer.in_flight), window_ - std::min(window_, in_flight_));
  }
  Peers::iterator most_urgent() {
    auto best = peers_.end();
    for (auto at = peers_.begin(); at != peers_.end(); ++at) {
      if (at->second.queue.empty() || next(at->second) > allowance(at->second)) continue;
      if (best != peers_.end()) {
        const runtime::Priority& a = at->second.queue.begin()->first.first;
        const runtime::Priority& b = best->second.queue.begin()->first.first;
        if (a != b ? b < a : best->second.served <= at->second.served) continue;
      }
      best = at;
    }
    return best;
  }

  std::size_t window_;
  Peers peers_;
  std::size_t in_flight_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint64_t turn_ = 1;
};

TEST_F(SchedulerTest, SendsWhatALookAtAllPeersForEveryFrameSends) {
  for (const std::uint64_t seed : test::seeds(60)) {
    SCOPED_TRACE(test::replay(seed));
    std::mt19937_64 random(seed);
    // From less than a piece to several, and not always whole pieces.
    const std::size_t window = 1 + random() % (random() % 2 == 0 ? 8 * kPieceBytes : kPieceBytes);
    start(window);
    bench.tasks.clear();
    bench.sent.clear();
    SlowScheduler model(window);
    const std::uint32_t peers = 1 + static_cast<std::uint32_t>(random() % 12);
    const auto any_peer = [&] { return Member{1 + static_cast<std::uint32_t>(random() % peers)}; };
    for (int step = 0; step < 300; ++step) {
      for (std::uint64_t i = random() % 4; i > 0; --i) {
        const std::size_t sizes[] = {0, 100, 10'000, 16'384, 40'000, kPieceBytes, kPieceBytes + 5, 3 * kPieceBytes};
        const auto send_class = static_cast<SendClass>(random() % 3);
        const runtime::SendRequest made =
            request(any_peer(), static_cast<std::uint32_t>(random() % 20), sizes[random() % std::size(sizes)],
                    static_cast<std::uint32_t>(random() % 3), send_class, random() % 2);
        model.enqueue(made);
        scheduler->enqueue(made);
      }
      if (const Member from = any_peer(); random() % 3 > 0 && model.in_flight(from) > 0) {
        const std::size_t bytes = random() % 2 == 0 ? model.in_flight(from) : 1 + random() % model.in_flight(from);
        model.credit(from, bytes);
        bench.receipt(from, {}, static_cast<std::uint32_t>(bytes));
      }
      if (random() % 50 == 0) {
        const Member gone = any_peer();
        model.forget(gone);
        scheduler->forget(gone);
      }
      bench.run();
      std::vector<SlowScheduler::Sent> sent;
      for (const auto& [to, frame] : std::exchange(bench.sent, {})) {
        sent.push_back({to, {}});
        for (const PartHeader& part : frame.parts) sent.back().parts.emplace_back(index(part.tensor), part.bytes);
      }
      ASSERT_EQ(sent, model.pump()) << "step " << step;
    }
  }
}

TEST_F(SchedulerTest, CreditOfOneAmongManyPeersServesThatOne) {
  start(1);
  for (std::uint32_t peer = 1; peer <= 2'000; ++peer) scheduler->enqueue(request(Member{peer}, 1, 3 * kPieceBytes, peer % 7));
  bench.run();
  EXPECT_EQ(bench.tensors().size(), 4'000u) << "two pieces each";
  bench.credit(Member{1'234}, kPieceBytes);
  ASSERT_EQ(bench.sent.size(), 1u);
  EXPECT_EQ(bench.sent[0].first, Member{1'234});
}

}  // namespace
}  // namespace poseidon::session
