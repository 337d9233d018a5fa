// What TLS promises, and what happens to those who break it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/transport_fixture.h"

namespace poseidon::runtime::real {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using wire::FrameType;

TcpOptions with_tls() { return {.tls = TlsOptions{}}; }

// Both handshakes together are shorter than this, a piece is longer: a change at this place hits data.
constexpr std::uint64_t kWithinThePayload = 20'000;

// Member 0 calls member 1 through the middleman and pushes a piece.
void push_through(Middleman& between, Node& from, Node& to, std::vector<std::byte>& piece) {
  from.run([&] { from.transport().connect(Member{1}, {{"127.0.0.1", between.port()}}, 10s); });
  ASSERT_TRUE(from.wait("up 1")) << ::testing::PrintToString(from.notes());
  ASSERT_TRUE(to.wait("up 0"));
  from.run([&] { from.transport().send({Member{1}, Lane{0}}, data(FrameType::kPush, piece), nullptr); });
}

bool contains(const std::vector<std::byte>& all, const std::vector<std::byte>& part) {
  return std::search(all.begin(), all.end(), part.begin(), part.end()) != all.end();
}

TEST(TlsStream, NothingOfTheFramesCanBeReadOnTheWay) {
  const std::vector<std::byte> word(16, std::byte{0xA5});
  const std::vector<std::byte> magic{std::byte{'P'}, std::byte{'S'}, std::byte{'D'}, std::byte{'N'}};
  for (const bool encrypted : {false, true}) {
    const TcpOptions options = encrypted ? with_tls() : TcpOptions{};
    std::vector<std::byte> piece(wire::kPieceBytes, std::byte{0xA5});
    std::vector<std::byte> target(wire::kPieceBytes);
    std::optional<Node> to(std::in_place, Member{1}, test_key(), options);
    Middleman between(to->port());
    {
      Node from(Member{0}, test_key(), options);
      to->accept_pushes(target);
      push_through(between, from, *to, piece);
      EXPECT_TRUE(to->wait("landed 0."));
    }
    EXPECT_EQ(target, piece);
    to.reset();
    EXPECT_GT(between.seen().size(), wire::kPieceBytes);
    EXPECT_EQ(contains(between.seen(), word), !encrypted);
    EXPECT_EQ(contains(between.seen(), magic), !encrypted);
  }
}

TEST(TlsStream, AChangedByteClosesTheLink) {
  std::vector<std::byte> piece(wire::kPieceBytes, std::byte{1});
  std::vector<std::byte> target(wire::kPieceBytes);
  std::optional<Node> to(std::in_place, Member{1}, test_key(), with_tls());
  Middleman between(to->port(), [](std::uint64_t before, std::vector<std::byte>& bytes) {
    if (before <= kWithinThePayload && kWithinThePayload < before + bytes.size()) bytes[kWithinThePayload - before] ^= std::byte{1};
    return true;
  });
  Node from(Member{0}, test_key(), with_tls());
  to->accept_pushes(target);
  push_through(between, from, *to, piece);
  EXPECT_TRUE(to->wait("down 0 TLS: what came is not what the other side has sent; somebody has changed it"))
      << ::testing::PrintToString(to->notes());
  EXPECT_TRUE(from.wait("down 1 the other side ended TLS: bad record mac")) << ::testing::PrintToString(from.notes());
  EXPECT_THAT(to->notes(), Not(Contains("landed 0.")));
  to.reset();
}

TEST(TlsStream, AChangedByteInTheHandshakeOpensNothing) {
  Node to(Member{1}, test_key(), with_tls());
  Middleman between(to.port(), [](std::uint64_t, std::vector<std::byte>& bytes) {
    bytes.back() ^= std::byte{1};
    return true;
  });
  Node from(Member{0}, test_key(), with_tls());
  from.run([&] { from.transport().connect(Member{1}, {{"127.0.0.1", between.port()}}, 300ms); });
  EXPECT_TRUE(from.wait("down 1 cannot connect"));
  EXPECT_THAT(to.notes(), ::testing::IsEmpty());
}

TEST(TlsStream, AnEndWithoutFarewellIsToldFromOneThatIsMeant) {
  std::vector<std::byte> piece(wire::kPieceBytes, std::byte{1});
  std::vector<std::byte> target(wire::kPieceBytes);
  Node to(Member{1}, test_key(), with_tls());
  Middleman between(to.port(), [](std::uint64_t before, std::vector<std::byte>&) { return before < kWithinThePayload; });
  Node from(Member{0}, test_key(), with_tls());
  to.accept_pushes(target);
  push_through(between, from, to, piece);
  from.run([&] { from.transport().send({Member{1}, Lane{0}}, data(FrameType::kPush, piece, 1), nullptr); });
  EXPECT_TRUE(to.wait("down 0 the connection was closed by the other side in the middle of TLS, without its farewell"))
      << ::testing::PrintToString(to.notes());
  EXPECT_TRUE(from.wait("down 1"));
}

TEST(TlsStream, AFarewellIsAnOrdinaryEnd) {
  Node to(Member{1}, test_key(), with_tls());
  auto from = std::make_unique<Node>(Member{0}, test_key(), with_tls());
  link(*from, to);
  from.reset();
  EXPECT_TRUE(to.wait("down 0"));
  EXPECT_THAT(to.notes(), Contains("down 0 the connection was closed by the other side"));
}

TEST(TlsStream, APeerWithoutItIsToldWhatIsWrong) {
  for (const bool caller_has_it : {false, true}) {
    Node hub(Member{0}, test_key(), caller_has_it ? TcpOptions{} : with_tls());
    Node caller(Member{1}, test_key(), caller_has_it ? with_tls() : TcpOptions{});
    caller.run([&] { caller.transport().connect(Member{0}, {{"127.0.0.1", hub.port()}}, 10s); });
    EXPECT_TRUE(caller.wait("down 0 cannot connect to 127.0.0.1:" + std::to_string(hub.port()) + ": the other side speaks " +
                            (caller_has_it ? "without TLS, and this one with it" : "TLS, and this one without it") +
                            ": give --tls to all processes of a job, or to none"))
        << ::testing::PrintToString(caller.notes());
    EXPECT_THAT(hub.notes(), ::testing::IsEmpty());
    // The hub is still there for those who speak as it does.
    Node right(Member{2}, test_key(), caller_has_it ? TcpOptions{} : with_tls());
    link(right, hub);
  }
}

TEST(TlsStream, NoSecretStandsInAnError) {
  const wire::JobKey key = test_key();
  Node hub(Member{0}, key, with_tls());
  Node stray(Member{1}, wire::job_key(base::random_bytes(32)), with_tls());
  stray.run([&] { stray.transport().connect(Member{0}, {{"127.0.0.1", hub.port()}}, 10s); });
  ASSERT_TRUE(stray.wait("down 0"));
  for (const std::string& note : stray.notes()) EXPECT_THAT(note, Not(HasSubstr(base::to_hex(key.secret))));
}

}  // namespace
}  // namespace poseidon::runtime::real
