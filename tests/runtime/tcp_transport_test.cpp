// The real transport, two or three of them in one process over loopback: plain, with TLS, and with TLS that changes its keys
// all the time. What only TLS has to show is in tls_stream_test.cpp.
#include "runtime/real/tcp_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <random>

#include "runtime/transport_fixture.h"

namespace poseidon::runtime::real {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using wire::FrameType;
using wire::PartHeader;

class TcpTransportTest : public ::testing::TestWithParam<Link> {
 protected:
  TcpOptions options() const { return {.tls = GetParam().tls}; }
};
INSTANTIATE_TEST_SUITE_P(, TcpTransportTest,
                         ::testing::Values(Link{"Plain", std::nullopt}, Link{"Tls", TlsOptions{}}, Link{"TlsWithNewKeys", TlsOptions{.rekey_bytes = 50'000}}),
                         [](const auto& test) { return test.param.name; });

// Random messages of all sizes and shapes in both directions at once: each byte arrives once, in its place.
TEST_P(TcpTransportTest, DeliversRandomMessagesIntoStridedSinks) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    std::mt19937_64 random(seed);
    struct Message {
      std::vector<std::byte> source;
      std::vector<std::byte> target;
      Layout from;
      Layout to;
      std::size_t bytes = 0;
    };
    constexpr int kMessages = 60;
    std::vector<Message> messages(2 * kMessages);
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t bytes_left = 0;
    std::size_t unsent = 0;
    Node a(Member{0}, test_key(), options());
    Node b(Member{1}, test_key(), options());
    link(a, b);
    for (Message& message : messages) {
      const std::size_t rows = 1 + random() % 40;
      const std::size_t row_bytes = 1 + random() % (random() % 4 == 0 ? 9000 : 50);
      const auto make = [&](std::vector<std::byte>& memory) {
        const std::size_t stride = row_bytes + random() % 30;
        memory.resize(rows * stride + 7);
        return Layout::strided({.region = {memory.data(), memory.size(), {}, 0}, .offset = 7, .row_bytes = row_bytes, .rows = rows, .stride = stride});
      };
      message.from = make(message.source);
      message.to = make(message.target);
      message.bytes = rows * row_bytes;
      for (std::byte& x : message.source) x = static_cast<std::byte>(random());
      bytes_left += message.bytes;
    }
    const auto post_half = [&](Node& sender, Node& receiver, std::size_t first) {
      receiver.run([&] {
        for (std::size_t m = first; m < first + kMessages; ++m) {
          receiver.transport().expect(sender.transport().self(), {FrameType::kSum, TensorId{static_cast<std::uint32_t>(m)}, 0},
                                      {0, messages[m].bytes, messages[m].to, [&](Member, const PartHeader& part) {
                                         const std::lock_guard lock(mutex);
                                         bytes_left -= part.bytes;
                                         changed.notify_all();
                                       }});
        }
      });
      sender.run([&] {
        Parts parts;
        std::vector<Slice> payload;
        std::size_t fused = 0;
        const auto flush = [&] {
          if (parts.empty()) return;
          {
            const std::lock_guard lock(mutex);
            ++unsent;
          }
          sender.transport().send({receiver.transport().self(), Lane{0}}, {std::exchange(parts, {}), std::exchange(payload, {}), 0}, [&] {
            const std::lock_guard lock(mutex);
            --unsent;
            changed.notify_all();
          });
          fused = 0;
        };
        for (std::size_t m = first; m < first + kMessages; ++m) {
          for (std::size_t at = 0; at < messages[m].bytes; at += wire::kPieceBytes) {
            const std::size_t bytes = std::min(wire::kPieceBytes, messages[m].bytes - at);
            if (fused + bytes > wire::kPieceBytes || random() % 3 == 0) flush();
            parts.push_back({.type = FrameType::kSum, .tensor = TensorId{static_cast<std::uint32_t>(m)}, .offset = at, .bytes = static_cast<std::uint32_t>(bytes)});
            messages[m].from.slices(at, at + bytes, payload);
            fused += bytes;
          }
        }
        flush();
      });
    };
    post_half(a, b, 0);
    post_half(b, a, kMessages);
    {
      std::unique_lock lock(mutex);
      ASSERT_TRUE(changed.wait_for(lock, 20s, [&] { return bytes_left == 0 && unsent == 0; })) << "seed " << seed << ", " << bytes_left << " bytes missing";
    }
    for (const Message& message : messages) {
      std::vector<Slice> from;
      std::vector<Slice> to;
      message.from.slices(0, message.bytes, from);
      message.to.slices(0, message.bytes, to);
      std::vector<std::byte> sent(message.bytes);
      std::vector<std::byte> received(message.bytes);
      gather(from, sent.data());
      gather(to, received.data());
      ASSERT_EQ(sent, received) << "seed " << seed;
    }
  }
}

TEST_P(TcpTransportTest, AnUnexpectedFrameClosesTheLinkWithTheReason) {
  std::vector<std::byte> bytes(10);  // before the nodes, which may use it as long as they live
  Node a(Member{0}, test_key(), options());
  Node b(Member{1}, test_key(), options());
  link(a, b);
  a.run([&] { a.transport().send({Member{1}, Lane{0}}, data(FrameType::kSum, bytes), nullptr); });
  EXPECT_TRUE(b.wait("down 0 member 0 sent bytes [0, 10) of tensor 0, iteration 0, as frame type 33, which nobody waits for"));
  EXPECT_TRUE(a.wait("down 1"));
}

TEST_P(TcpTransportTest, AFutureEpochPausesTheStreamAndAPastOneIsDropped) {
  std::vector<std::byte> target(100'000);
  std::vector<std::byte> bytes(50'000, std::byte{7});
  Node a(Member{0}, test_key(), options());
  Node b(Member{1}, test_key(), options());
  link(a, b);
  b.run([&] {
    b.transport().set_acceptor(FrameType::kPush, [&](Member, const PartHeader& part) -> Result<Sink> {
      return Sink{0, part.bytes, Layout::contiguous({target.data(), target.size(), {}, 0}, 0, part.bytes),
                  [&](Member, const PartHeader& p) { b.note("landed " + std::to_string(p.iteration) + "."); }};
    });
  });
  const auto push = [&](Iteration iteration) {
    a.run([&] { a.transport().send({Member{1}, Lane{0}}, data(FrameType::kPush, bytes, iteration), nullptr); });
  };
  a.run([&] { a.transport().set_epoch(Epoch{2}); });
  push(1);
  push(2);
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(b.notes().size(), 1u) << "only that the link is up: " << ::testing::PrintToString(b.notes());
  b.run([&] { b.transport().set_epoch(Epoch{2}); });
  EXPECT_TRUE(b.wait("landed 2."));
  b.run([&] { b.transport().set_epoch(Epoch{3}); });
  push(3);
  a.run([&] { a.transport().set_epoch(Epoch{3}); });
  push(4);
  EXPECT_TRUE(b.wait("landed 4."));
  EXPECT_THAT(b.notes(), ::testing::Not(::testing::Contains("landed 3.")));
}

TEST_P(TcpTransportTest, NothingReachesARevokedSinkEvenInTheMiddleOfAPart) {
  std::vector<std::byte> target(wire::kPieceBytes);
  std::vector<std::byte> next(10);
  Node node(Member{1}, test_key(), options());
  BareMember peer(Member{0}, Member{1}, node.port(), GetParam().tls);
  SinkId sink{};
  const auto half = static_cast<std::ptrdiff_t>(target.size() / 2);
  node.run([&] {
    const auto whole = [](std::vector<std::byte>& memory) { return Layout::contiguous({memory.data(), memory.size(), {}, 0}, 0, memory.size()); };
    sink = node.transport().expect(Member{0}, {FrameType::kSum, TensorId{0}, 0}, {0, target.size(), whole(target), [&](Member, const PartHeader&) { node.note("landed"); }});
    node.transport().expect(Member{0}, {FrameType::kSum, TensorId{0}, 1}, {0, next.size(), whole(next), [&](Member, const PartHeader&) { node.note("next"); }});
  });
  peer.send_header({.type = FrameType::kSum, .bytes = wire::kPieceBytes});
  peer.send(std::vector<std::byte>(wire::kPieceBytes / 2, std::byte{9}));
  // Until the first half is in place.
  for (bool is_in_place = false; !is_in_place;) node.run([&] { is_in_place = target[static_cast<std::size_t>(half) - 1] == std::byte{9}; });
  node.run([&] { node.transport().revoke(sink); });
  peer.send(std::vector<std::byte>(wire::kPieceBytes / 2, std::byte{7}));
  peer.send_header({.type = FrameType::kSum, .iteration = 1, .bytes = 10});
  peer.send(std::vector<std::byte>(10, std::byte{3}));
  EXPECT_TRUE(node.wait("next")) << "the stream goes on behind the part that nobody wants";
  EXPECT_THAT(std::vector<std::byte>(target.begin() + half, target.end()), ::testing::Each(std::byte{0}));
  EXPECT_THAT(node.notes(), ::testing::Not(::testing::Contains("landed")));
  EXPECT_THAT(next, ::testing::Each(std::byte{3}));
}

TEST_P(TcpTransportTest, ADeadPeerIsNoticedAndItsBorrowedMemoryReturned) {
  std::vector<std::byte> bytes(10);
  Node a(Member{0}, test_key(), options());
  auto b = std::make_unique<Node>(Member{1}, test_key(), options());
  link(a, *b);
  b.reset();
  EXPECT_TRUE(a.wait("down 1 the connection was closed by the other side"));
  std::promise<void> sent;
  a.run([&] { a.transport().send({Member{1}, Lane{0}}, data(FrameType::kSum, bytes), [&] { sent.set_value(); }); });
  EXPECT_EQ(sent.get_future().wait_for(5s), std::future_status::ready);
}

TEST_P(TcpTransportTest, DisconnectSendsWhatWasQueued) {
  std::vector<std::byte> target(wire::kPieceBytes);
  std::vector<std::byte> bytes(wire::kPieceBytes);
  Node a(Member{0}, test_key(), options());
  Node b(Member{1}, test_key(), options());
  link(a, b);
  b.run([&] {
    b.transport().set_acceptor(FrameType::kPush, [&](Member, const PartHeader& part) -> Result<Sink> {
      return Sink{0, part.bytes, Layout::contiguous({target.data(), target.size(), {}, 0}, 0, part.bytes),
                  [&](Member, const PartHeader& p) { b.note("landed " + std::to_string(p.iteration) + "."); }};
    });
  });
  a.run([&] {
    for (Iteration i = 0; i < 200; ++i) a.transport().send({Member{1}, Lane{0}}, data(FrameType::kPush, bytes, i), nullptr);
    a.transport().disconnect(Member{1});
  });
  EXPECT_TRUE(b.wait("landed 199."));
  EXPECT_TRUE(b.wait("down 0"));
  EXPECT_THAT(a.notes(), ::testing::Each(::testing::Not(HasSubstr("down")))) << "who closes needs no news of it";
}

TEST_P(TcpTransportTest, APortInUseIsAnErrorThatSaysSo) {
  Node a(Member{0}, test_key(), options());
  RealLane lane("second");
  const auto second = TcpTransport::open(lane, {.key = test_key(), .self = Member{1}, .listen_port = a.port()});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kSystem);
  EXPECT_THAT(second.error().message, HasSubstr("127.0.0.1:" + std::to_string(a.port())));
  EXPECT_THAT(second.error().message, HasSubstr("another program has the port"));
}

TEST_P(TcpTransportTest, NobodyThereIsNoticedByTheDeadline) {
  std::uint16_t port = 0;
  {
    Node gone(Member{5}, test_key(), options());
    port = gone.port();
  }
  Node a(Member{0}, test_key(), options());
  a.run([&] { a.transport().connect(Member{5}, {{"127.0.0.1", port}}, 300ms); });
  EXPECT_TRUE(a.wait("down 5 cannot connect to 127.0.0.1:" + std::to_string(port)));
}

TEST_P(TcpTransportTest, ASecondConnectionOfTheSameMemberIsRefused) {
  Node hub(Member{0}, test_key(), options());
  Node one(Member{1}, test_key(), options());
  link(one, hub);
  Node impostor(Member{1}, test_key(), options());
  impostor.run([&] { impostor.transport().connect(Member{0}, {{"127.0.0.1", hub.port()}}, 5s); });
  EXPECT_TRUE(impostor.wait("member 1 is connected already"));
}

TEST_P(TcpTransportTest, ALaneReachesTheSameLaneOfItsPeersOnly) {
  TcpOptions on_lane_1 = options();
  on_lane_1.lane = 1;
  Node a(Member{1}, test_key(), on_lane_1);
  Node b(Member{2}, test_key(), on_lane_1);
  Node c(Member{3}, test_key(), options());
  link(a, b);
  c.run([&] { c.transport().connect(Member{1}, {{"127.0.0.1", a.port()}}, 10s); });
  EXPECT_TRUE(c.wait("lane 0 was called, and lane 1 listens here")) << ::testing::PrintToString(c.notes());
}

TEST_P(TcpTransportTest, BytesThatAreNoFramesOnlyCostTheStrangerItsConnection) {
  Node hub(Member{0}, test_key(), options());
  std::mt19937_64 random(3);
  for (int round = 0; round < 20; ++round) {
    asio::io_context loop;
    asio::ip::tcp::socket socket(loop);
    socket.connect({asio::ip::make_address("127.0.0.1"), hub.port()});
    std::vector<std::byte> noise(1 + random() % 300);
    for (std::byte& b : noise) b = static_cast<std::byte>(random());
    asio::error_code ignored;
    socket.write_some(asio::buffer(noise), ignored);
  }
  Node one(Member{1}, test_key(), options());
  link(one, hub);
}

TEST_P(TcpTransportTest, AMemberOfAnotherJobIsToldSo) {
  Node hub(Member{0}, test_key(), options());
  Node stray(Member{1}, wire::job_key(base::random_bytes(32)), options());
  stray.run([&] { stray.transport().connect(Member{0}, {{"127.0.0.1", hub.port()}}, 10s); });
  EXPECT_TRUE(stray.wait("down 0 cannot connect")) << ::testing::PrintToString(stray.notes());
  EXPECT_TRUE(stray.wait("this is another job: its members have a different secret"));
  EXPECT_THAT(hub.notes(), ::testing::IsEmpty());
}

// The job's number is not secret: a stranger may know it.
TEST_P(TcpTransportTest, ARightNumberWithAWrongSecretOpensNothing) {
  Node hub(Member{0}, test_key(), options());
  Node liar(Member{1}, {base::random_bytes(32), test_key().job}, options());
  liar.run([&] { liar.transport().connect(Member{0}, {{"127.0.0.1", hub.port()}}, 300ms); });
  EXPECT_TRUE(liar.wait("down 0 cannot connect")) << ::testing::PrintToString(liar.notes());
  EXPECT_THAT(hub.notes(), ::testing::IsEmpty());
}

TEST_P(TcpTransportTest, AStrangerWhoSaysNothingIsClosedByTheDeadline) {
  TcpOptions hasty = options();
  hasty.handshake_deadline = 200ms;
  Node hub(Member{0}, test_key(), hasty);
  asio::io_context loop;
  asio::ip::tcp::socket socket(loop);
  socket.connect({asio::ip::make_address("127.0.0.1"), hub.port()});
  std::byte byte{};
  asio::error_code failed;
  socket.read_some(asio::buffer(&byte, 1), failed);  // until the hub closes it
  EXPECT_TRUE(failed);
}

}  // namespace
}  // namespace poseidon::runtime::real
