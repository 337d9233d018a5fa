#include "wire/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "base/checksum.h"

namespace poseidon::wire {
namespace {

using ::testing::HasSubstr;

const Handshake::AdmitFn kAnybody = [](Member, std::uint32_t) { return Status{}; };

// Hands the frame over, as a transport would.
Result<std::vector<std::byte>> feed(Handshake& to, const std::vector<std::byte>& frame) {
  const std::span<const std::byte> bytes(frame);
  const Result<FrameHeader> header = decode_header(bytes.first<kHeaderBytes>());
  if (!header) return header.error();
  return to.on_frame(*header, bytes.subspan(kHeaderBytes));
}

// Runs the two against each other until both have finished or one has an error.
struct Outcome {
  Handshake connector;
  Handshake acceptor;
  std::optional<Error> connector_error;
  std::optional<Error> acceptor_error;
};
Outcome shake(Handshake connector, Handshake acceptor) {
  Outcome outcome{std::move(connector), std::move(acceptor), {}, {}};
  std::deque<std::pair<bool, std::vector<std::byte>>> frames = {{false, outcome.connector.start()}};  // true: to the connector
  while (!frames.empty()) {
    const auto [to_connector, frame] = frames.front();
    frames.pop_front();
    Handshake& side = to_connector ? outcome.connector : outcome.acceptor;
    std::optional<Error>& error = to_connector ? outcome.connector_error : outcome.acceptor_error;
    if (error) continue;
    Result<std::vector<std::byte>> answer = feed(side, frame);
    if (!answer) error = answer.error();
    const std::vector<std::byte>& back = answer ? *answer : side.farewell();
    if (!back.empty()) frames.emplace_back(!to_connector, back);
  }
  return outcome;
}

TEST(Handshake, BetweenMembersOfOneJobSucceeds) {
  const JobKey key = job_key(base::random_bytes(32));
  const Outcome outcome =
      shake(Handshake::connector(key, Member{2}, Member{0}, 1), Handshake::acceptor(key, Member{0}, kAnybody));
  EXPECT_FALSE(outcome.connector_error);
  EXPECT_FALSE(outcome.acceptor_error);
  ASSERT_TRUE(outcome.connector.finished());
  ASSERT_TRUE(outcome.acceptor.finished());
  EXPECT_EQ(outcome.acceptor.peer(), Member{2});
  EXPECT_EQ(outcome.acceptor.lane(), 1u);
}

TEST(Handshake, OfTwoJobsIsRefusedAndSaysSo) {
  const Outcome outcome = shake(Handshake::connector(job_key(base::random_bytes(32)), Member{2}, Member{0}, 0),
                                Handshake::acceptor(job_key(base::random_bytes(32)), Member{0}, kAnybody));
  ASSERT_TRUE(outcome.connector_error && outcome.acceptor_error);
  EXPECT_EQ(outcome.connector_error->code, ErrorCode::kRefused);
  EXPECT_THAT(outcome.connector_error->message, HasSubstr("another job"));
}

TEST(Handshake, WithTheRightJobNumberButNotTheSecretFailsOnBothSides) {
  const JobKey right = job_key(base::random_bytes(32));
  JobKey wrong = job_key(base::random_bytes(32));
  wrong.job = right.job;
  // Whoever lacks the secret, the other side notices.
  const Outcome impostor_calls =
      shake(Handshake::connector(wrong, Member{2}, Member{0}, 0), Handshake::acceptor(right, Member{0}, kAnybody));
  EXPECT_TRUE(impostor_calls.connector_error || impostor_calls.acceptor_error);
  EXPECT_FALSE(impostor_calls.acceptor.finished());
  const Outcome impostor_answers =
      shake(Handshake::connector(right, Member{2}, Member{0}, 0), Handshake::acceptor(wrong, Member{0}, kAnybody));
  ASSERT_TRUE(impostor_answers.connector_error);
  EXPECT_THAT(impostor_answers.connector_error->message, HasSubstr("does not know the job's secret"));
  EXPECT_FALSE(impostor_answers.connector.finished());
}

// An impostor who skips the check of the acceptor and guesses a proof gets nowhere either.
TEST(Handshake, AGuessedProofIsRefused) {
  const JobKey key = job_key(base::random_bytes(32));
  Handshake acceptor = Handshake::acceptor(key, Member{0}, kAnybody);
  Handshake connector = Handshake::connector(key, Member{2}, Member{0}, 0);
  ASSERT_TRUE(feed(acceptor, connector.start()).ok());
  FrameHeader header;
  header.job = key.job;
  header.sender = Member{2};
  header.part = {.type = FrameType::kProof, .bytes = 32};
  const Result<std::vector<std::byte>> answer = acceptor.on_frame(header, std::vector<std::byte>(32, std::byte{7}));
  ASSERT_FALSE(answer.ok());
  EXPECT_THAT(answer.error().message, HasSubstr("member 2 does not know the job's secret"));
}

TEST(Handshake, ARecordedProofServesNoOtherConnection) {
  const JobKey key = job_key(base::random_bytes(32));
  Handshake connector = Handshake::connector(key, Member{2}, Member{0}, 0);
  Handshake first = Handshake::acceptor(key, Member{0}, kAnybody);
  const std::vector<std::byte> hello = connector.start();
  const std::vector<std::byte> proof = feed(connector, feed(first, hello).value()).value();
  ASSERT_TRUE(feed(first, proof).ok());
  ASSERT_TRUE(first.finished());
  Handshake second = Handshake::acceptor(key, Member{0}, kAnybody);
  ASSERT_TRUE(feed(second, hello).ok());
  EXPECT_FALSE(feed(second, proof).ok()) << "the same two messages, replayed";
  EXPECT_FALSE(second.finished());
}

// A man in the middle sends a member's own words back to it.
TEST(Handshake, AReflectedChallengeIsRefused) {
  const JobKey key = job_key(base::random_bytes(32));
  Handshake a = Handshake::connector(key, Member{1}, Member{0}, 0);
  // It pretends to be member 0 by calling member 1 itself and passing the answers on.
  Handshake b = Handshake::acceptor(key, Member{1}, kAnybody);
  Handshake middle = Handshake::connector(key, Member{0}, Member{1}, 0);
  a.start();
  const std::vector<std::byte> challenge = feed(b, middle.start()).value();
  EXPECT_FALSE(feed(a, challenge).ok());
}

TEST(Handshake, TheAcceptorDecidesWhoIsAdmittedAfterTheProof) {
  const JobKey key = job_key(base::random_bytes(32));
  const auto nobody = [](Member, std::uint32_t) -> Status { return Error{ErrorCode::kRefused, "member 2 is connected already"}; };
  const Outcome outcome = shake(Handshake::connector(key, Member{2}, Member{0}, 0), Handshake::acceptor(key, Member{0}, nobody));
  ASSERT_TRUE(outcome.connector_error);
  EXPECT_EQ(outcome.connector_error->message, "member 2 is connected already");
}

TEST(Handshake, OfAMemberThatWasLookedForElsewhereIsRefused) {
  const JobKey key = job_key(base::random_bytes(32));
  const Outcome outcome = shake(Handshake::connector(key, Member{2}, Member{5}, 0), Handshake::acceptor(key, Member{0}, kAnybody));
  ASSERT_TRUE(outcome.connector_error);
  EXPECT_THAT(outcome.connector_error->message, HasSubstr("this is member 0, not member 5"));
}

TEST(Handshake, FramesOutOfTurnEndIt) {
  const JobKey key = job_key(base::random_bytes(32));
  for (const FrameType type : {FrameType::kChallenge, FrameType::kProof, FrameType::kWelcome, FrameType::kControl}) {
    Handshake acceptor = Handshake::acceptor(key, Member{0}, kAnybody);
    FrameHeader header;
    header.job = key.job;
    header.part.type = type;
    EXPECT_FALSE(acceptor.on_frame(header, {}).ok()) << static_cast<int>(type);
    EXPECT_FALSE(acceptor.finished());
  }
}

TEST(Handshake, ARefusalFromOutsideIsCleanedForTheTerminal) {
  const JobKey key = job_key(base::random_bytes(32));
  Handshake connector = Handshake::connector(key, Member{2}, Member{0}, 0);
  connector.start();
  FrameHeader header;
  header.part.type = FrameType::kRefusal;
  const std::string text = "no\x1b[2J\n";
  const auto answer = connector.on_frame(header, std::as_bytes(std::span(text.data(), text.size())));
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().message, "no?[2J?");
}

}  // namespace
}  // namespace poseidon::wire
