#include "session/send_scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "support/hand_lane.h"
#include "support/seeds.h"

namespace poseidon::session {
namespace {

using runtime::Frame;
using runtime::SendClass;
using wire::FrameType;
using wire::kPieceBytes;
using wire::PartHeader;

// Keeps every frame.
class Bench : public test::HandLane {
 public:
  void send(runtime::Destination to, Frame frame, runtime::SentFn on_sent) override {
    sent.emplace_back(to.peer, std::move(frame));
    if (is_slow) {
      leaving.push_back(std::move(on_sent));
    } else if (on_sent) {
      on_sent();
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

  std::vector<std::pair<Member, Frame>> sent;
  bool is_slow = false;                  // frames leave when somebody calls
  std::vector<runtime::SentFn> leaving;  // these
};

struct SchedulerTest : ::testing::Test {
  runtime::SendRequest request(Member to, std::uint32_t tensor, std::size_t bytes, std::uint32_t layer, SendClass send_class = SendClass::kPush,
                               Iteration iteration = 0) {
    PartHeader part;
    part.type = send_class == SendClass::kSum ? FrameType::kSum : FrameType::kPush;
    part.tensor = TensorId{tensor};
    part.iteration = iteration;
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

TEST_F(SchedulerTest, AHoldThatPointsToNothingIsKeptUntilTheFrameHasLeft) {
  start(kPieceBytes);
  bench.is_slow = true;
  bool is_released = false;
  runtime::SendRequest message = request(kA, 1, kPieceBytes, 1);
  message.hold = std::shared_ptr<void>(nullptr, [&](void*) { is_released = true; });
  scheduler->enqueue(std::move(message));
  bench.run();
  EXPECT_FALSE(is_released) << "its bytes are still read";
  ASSERT_EQ(bench.leaving.size(), 1u);
  ASSERT_TRUE(bench.leaving[0]);
  bench.leaving[0]();
  EXPECT_TRUE(is_released);
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

wire::GateNews closed(std::uint64_t closing, std::vector<std::uint32_t> tensors, Iteration iteration = 0) {
  wire::GateNews news{.closing = closing, .open = false, .admitted = {}};
  for (const std::uint32_t tensor : tensors) news.admitted.push_back({TensorId{tensor}, 0, iteration});
  return news;
}

wire::GateNews opened(std::uint64_t closing) { return {.closing = closing, .open = true, .admitted = {}}; }

using Tensors = std::vector<std::uint32_t>;

TEST_F(SchedulerTest, AClosedGateKeepsPushesBackAndNothingElse) {
  start(std::size_t{1} << 30);
  scheduler->hear(kA, closed(1, {3}));
  scheduler->enqueue(request(kA, 1, 2 * kPieceBytes, 1));
  scheduler->enqueue(request(kA, 2, kPieceBytes, 2));
  scheduler->enqueue(request(kA, 3, kPieceBytes, 3));
  scheduler->enqueue(request(kA, 4, 0, 4));
  scheduler->enqueue(request(kA, 5, kPieceBytes, 5, SendClass::kSum));
  scheduler->enqueue(request(kB, 6, kPieceBytes, 6));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{3, 4, 5, 6})) << "what was asked for, what has no payload, a sum, and another server's";
  ASSERT_EQ(scheduler->kept_back().size(), 1u);
  EXPECT_EQ(scheduler->kept_back()[0].server, kA);
  EXPECT_EQ(scheduler->kept_back()[0].pushes, 2u);
  EXPECT_EQ(scheduler->kept_back()[0].bytes, 3 * kPieceBytes);
  EXPECT_FALSE(scheduler->idle());
  scheduler->hear(kA, closed(1, {2}));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{2}));
  scheduler->hear(kA, opened(1));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{1, 1}));
  EXPECT_TRUE(scheduler->kept_back().empty());
  EXPECT_TRUE(scheduler->idle());
}

TEST_F(SchedulerTest, WhatWasKeptBackTakesItsOldPlace) {
  start(1);
  for (const std::uint32_t tensor : {9u, 8u, 1u, 2u, 3u, 4u}) scheduler->enqueue(request(kA, tensor, kPieceBytes, tensor > 7 ? 0 : 5));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{9, 8})) << "two pieces are allowed";
  scheduler->hear(kA, closed(1, {}));
  scheduler->enqueue(request(kA, 5, kPieceBytes, 5));
  scheduler->enqueue(request(kA, 6, kPieceBytes, 4));
  bench.run();
  bench.credit(kA, 2 * kPieceBytes);
  EXPECT_TRUE(bench.tensors().empty());
  scheduler->hear(kA, opened(1));
  bench.run();
  Tensors order = bench.tensors();
  for (int i = 0; i < 4; ++i) {
    bench.credit(kA, kPieceBytes);
    for (const std::uint32_t tensor : bench.tensors()) order.push_back(tensor);
  }
  EXPECT_EQ(order, (Tensors{6, 1, 2, 3, 4, 5}));
}

TEST_F(SchedulerTest, AGateThatClosesStopsAMessageBetweenItsPieces) {
  start(1);
  scheduler->enqueue(request(kA, 1, 4 * kPieceBytes, 1));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{1, 1}));
  scheduler->hear(kA, closed(1, {}));
  bench.credit(kA, 2 * kPieceBytes);
  EXPECT_TRUE(bench.tensors().empty());
  EXPECT_EQ(scheduler->kept_back()[0].bytes, 2 * kPieceBytes);
  scheduler->hear(kA, closed(1, {1}));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{1, 1}));
}

TEST_F(SchedulerTest, AChunkIsAdmittedUpToAnIterationAndForOneClosing) {
  start(std::size_t{1} << 30);
  scheduler->hear(kA, closed(1, {1, 2}, 7));
  scheduler->enqueue(request(kA, 1, kPieceBytes, 1, SendClass::kPush, 8));
  bench.run();
  EXPECT_TRUE(bench.tensors().empty());
  scheduler->hear(kA, closed(2, {1}, 8));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{1}));
  scheduler->enqueue(request(kA, 2, kPieceBytes, 1, SendClass::kPush, 7));
  bench.run();
  EXPECT_TRUE(bench.tensors().empty()) << "that was another closing";
}

TEST_F(SchedulerTest, NewsOfAGateMeanTheSameInAnyOrder) {
  start(std::size_t{1} << 30);
  // The end of a closing overtakes its beginning.
  scheduler->hear(kA, opened(1));
  scheduler->hear(kA, closed(1, {}));
  scheduler->enqueue(request(kA, 1, kPieceBytes, 1));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{1}));
  // A later admission overtakes the first, and the end of the closing before comes last.
  scheduler->hear(kA, closed(3, {2}));
  scheduler->hear(kA, closed(3, {3}));
  scheduler->hear(kA, closed(2, {4}));
  scheduler->hear(kA, opened(2));
  for (const std::uint32_t tensor : {2u, 3u, 4u}) scheduler->enqueue(request(kA, tensor, kPieceBytes, tensor));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{2, 3}));
  // A chunk is admitted for one iteration after the other.
  scheduler->hear(kA, closed(3, {4}, 6));
  scheduler->hear(kA, closed(3, {4}, 5));
  scheduler->enqueue(request(kA, 4, kPieceBytes, 4, SendClass::kPush, 6));
  bench.run();
  EXPECT_EQ(bench.tensors(), (Tensors{4, 4}));
}

TEST_F(SchedulerTest, ForgettingAPeerForgetsItsGate) {
  start(std::size_t{1} << 30);
  scheduler->hear(kA, closed(5, {}));
  scheduler->enqueue(request(kA, 1, kPieceBytes, 1));
  scheduler->forget(kA);
  bench.run();
  EXPECT_TRUE(scheduler->idle());
  EXPECT_TRUE(bench.tensors().empty());
  EXPECT_TRUE(scheduler->kept_back().empty());
}

// The rule of send_scheduler.h by a look at all peers for every frame: small, slow, and another way than the scheduler's.
class SlowScheduler {
 public:
  explicit SlowScheduler(std::size_t window) : window_(window) {}
  void enqueue(const runtime::SendRequest& request) {
    peers_[request.to].queue.emplace(std::pair{request.priority, sequence_++},
                                     Message{index(request.part.tensor), request.source.bytes(), request.part.iteration,
                                             request.part.type == FrameType::kPush && request.source.bytes() > 0});
  }
  // Tensors with the last iterations that may leave; nothing: the gate is open.
  using Admitted = std::optional<std::set<std::pair<std::uint32_t, Iteration>>>;
  Admitted& gate(Member member) { return peers_[member].admitted; }
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
        const auto first = SlowScheduler::first(peer);
        const std::size_t bytes = std::min(kPieceBytes, first->second.bytes_left);
        frame.parts.emplace_back(first->second.tensor, bytes);
        total += bytes;
        first->second.bytes_left -= bytes;
        if (first->second.bytes_left == 0) peer.queue.erase(first);
      } while (frame.parts.front().second <= 16 * 1024 && first(peer) != peer.queue.end() && next(peer) <= 16 * 1024 &&
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
    Iteration iteration;
    bool may_be_kept_back;
  };
  using Queue = std::map<std::pair<runtime::Priority, std::uint64_t>, Message>;
  struct Peer {
    Queue queue;
    Admitted admitted;
    std::size_t in_flight = 0;
    std::uint64_t served = 0;
  };
  using Peers = std::map<Member, Peer>;

  // The most urgent message that is not kept back.
  static Queue::iterator first(Peer& peer) {
    return std::find_if(peer.queue.begin(), peer.queue.end(), [&](const auto& entry) {
      const Message& message = entry.second;
      return !peer.admitted || !message.may_be_kept_back ||
             std::any_of(peer.admitted->begin(), peer.admitted->end(), [&](const auto& admitted) {
               return admitted.first == message.tensor && message.iteration <= admitted.second;
             });
    });
  }
  static std::size_t next(Peer& peer) { return std::min(kPieceBytes, first(peer)->second.bytes_left); }
  std::size_t allowance(const Peer& peer) const {
    return std::max(2 * kPieceBytes - std::min(2 * kPieceBytes, peer.in_flight), window_ - std::min(window_, in_flight_));
  }
  Peers::iterator most_urgent() {
    auto best = peers_.end();
    for (auto at = peers_.begin(); at != peers_.end(); ++at) {
      if (first(at->second) == at->second.queue.end() || next(at->second) > allowance(at->second)) continue;
      if (best != peers_.end()) {
        const runtime::Priority& a = first(at->second)->first.first;
        const runtime::Priority& b = first(best->second)->first.first;
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
    std::uint64_t closing = 0;
    std::map<Member, std::uint64_t> closing_of;
    for (int step = 0; step < 300; ++step) {
      for (std::uint64_t i = random() % 4; i > 0; --i) {
        const std::size_t sizes[] = {0, 100, 10'000, 16'384, 40'000, kPieceBytes, kPieceBytes + 5, 3 * kPieceBytes};
        const auto send_class = static_cast<SendClass>(random() % 4);
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
      if (random() % 5 == 0) {
        const Member server = any_peer();
        SlowScheduler::Admitted& admitted = model.gate(server);
        if (admitted && random() % 3 == 0) {
          admitted.reset();
          scheduler->hear(server, opened(closing_of[server]));
        } else {
          if (!admitted || random() % 5 == 0) {
            admitted.emplace();
            closing_of[server] = ++closing;
          }
          wire::GateNews news = closed(closing_of[server], {});
          for (std::uint64_t i = random() % 6; i > 0; --i) {
            const auto tensor = static_cast<std::uint32_t>(random() % 20);
            const Iteration iteration = random() % 2;
            admitted->insert({tensor, iteration});
            news.admitted.push_back({TensorId{tensor}, 0, iteration});
          }
          scheduler->hear(server, news);
        }
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
