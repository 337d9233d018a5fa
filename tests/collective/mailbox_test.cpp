// Messages between workers: whatever the order in which the two ends name them, they arrive, and nothing travels before.
#include "collective/mailbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "runtime/sim/sim_world.h"

namespace poseidon::collective {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

struct MailboxTest : ::testing::Test {
  MailboxTest() {
    for (const Member member : members) world.add(member);
    for (const Member a : members) {
      for (const Member b : members) {
        if (index(b) < index(a)) world.at(a).connect(b, {}, 1s);
      }
    }
    world.run_for(10ms);
    for (std::int32_t rank = 0; rank < 3; ++rank) {
      boxes.push_back(std::make_unique<Mailbox>(world.at(members[static_cast<std::size_t>(rank)]), world.at(members[static_cast<std::size_t>(rank)]),
                                                MailboxOptions{.self = Rank{rank}, .members = members, .limits = {2s, 60s}}));
    }
  }
  ~MailboxTest() override { boxes.clear(); }

  static std::vector<std::byte> bytes_of(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
  }
  static runtime::Region region(std::vector<std::byte>& bytes) { return {bytes.data(), bytes.size(), {}, 0}; }
  Mailbox::DoneFn counting() {
    return [this](const std::optional<Error>& failed) {
      ++ended;
      if (failed) error = failed;
    };
  }
  std::uint64_t sent_by(std::size_t rank) { return world.at(members[rank]).link_bytes(members[rank == 0 ? 1 : 0]).sent; }

  runtime::sim::SimWorld world{{}};
  std::vector<Member> members = {Member{4}, Member{7}, Member{9}};
  std::vector<std::unique_ptr<Mailbox>> boxes;
  int ended = 0;
  std::optional<Error> error;
};

TEST_F(MailboxTest, MessagesArriveInAnyOrderOfNaming) {
  constexpr std::size_t kSizes[] = {0, 1, 4, 65'535, 65'536, 65'537, 1'000'003};
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    struct Message {
      int from, to;
      MessageName name;
      std::vector<std::byte> out, in;
    };
    std::vector<Message> messages;
    for (std::uint64_t number = 0; number < 24; ++number) {
      const int from = static_cast<int>(random() % 3), to = static_cast<int>((static_cast<unsigned>(from) + 1 + random() % 2) % 3);
      const std::size_t size = kSizes[random() % std::size(kSizes)];
      messages.push_back({from, to, {static_cast<std::uint32_t>(random() % 2), 100 * seed + number}, bytes_of(size, seed + static_cast<unsigned>(number)), std::vector<std::byte>(size)});
    }
    std::vector<std::function<void()>> acts;
    for (Message& message : messages) {
      acts.push_back([&] { boxes[static_cast<std::size_t>(message.from)]->send(Rank{message.to}, message.name, region(message.out), counting()); });
      acts.push_back([&] { boxes[static_cast<std::size_t>(message.to)]->receive(Rank{message.from}, message.name, region(message.in), counting()); });
    }
    std::shuffle(acts.begin(), acts.end(), random);
    ended = 0;
    for (const auto& act : acts) {
      act();
      world.run_for(std::chrono::microseconds(random() % 300));
    }
    world.run_for(1s);
    EXPECT_EQ(ended, 48) << "seed " << seed;
    EXPECT_FALSE(error) << error->message;
    for (const Message& message : messages) EXPECT_EQ(message.in, message.out) << "seed " << seed;
  }
}

TEST_F(MailboxTest, NothingTravelsBeforeItsReceiverIsReady) {
  std::vector<std::byte> out = bytes_of(500'000, 1), in(out.size());
  const std::uint64_t before = sent_by(0);
  boxes[0]->send(Rank{1}, {1, 0}, region(out), counting());
  world.run_for(1s);
  EXPECT_EQ(sent_by(0), before);
  EXPECT_EQ(ended, 0);
  boxes[1]->receive(Rank{0}, {1, 0}, region(in), counting());
  world.run_for(1s);
  EXPECT_EQ(in, out);
  EXPECT_EQ(ended, 2);
}

TEST_F(MailboxTest, TwoDirectionsAndTwoChannelsHaveTheirOwnNumbers) {
  std::vector<std::vector<std::byte>> out, in;
  for (unsigned i = 0; i < 4; ++i) {
    out.push_back(bytes_of(1000, i));
    in.emplace_back(1000);
  }
  for (std::uint32_t channel = 0; channel < 2; ++channel) {
    for (std::int32_t from = 0; from < 2; ++from) {
      const std::size_t which = 2 * channel + static_cast<std::size_t>(from);
      boxes[static_cast<std::size_t>(from)]->send(Rank{1 - from}, {channel, 5}, region(out[which]), counting());
      boxes[static_cast<std::size_t>(1 - from)]->receive(Rank{from}, {channel, 5}, region(in[which]), counting());
    }
  }
  world.run_for(1s);
  EXPECT_EQ(in, out);
}

TEST_F(MailboxTest, SizesThatDifferAreAnErrorThatNamesBothRanks) {
  std::vector<std::byte> out(100), in(200);
  boxes[2]->receive(Rank{0}, {1, 3}, region(in), counting());
  boxes[0]->send(Rank{2}, {1, 3}, region(out), counting());
  world.run_for(1s);
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("rank 0 sends 100 bytes where rank 2 waits for 200"));
  EXPECT_EQ(ended, 1) << "the receiver's wait ends with the job";
}

TEST_F(MailboxTest, TheEndOfTheJobEndsAllWaitsNowAndLater) {
  std::vector<std::byte> memory(100), more(100), late(100);
  boxes[0]->send(Rank{1}, {1, 0}, region(memory), counting());
  boxes[0]->receive(Rank{2}, {1, 0}, region(more), counting());
  boxes[0]->fail({ErrorCode::kAborted, "rank 1 is gone"});
  EXPECT_EQ(ended, 2);
  EXPECT_EQ(error->message, "rank 1 is gone");
  boxes[0]->receive(Rank{1}, {1, 1}, region(late), counting());
  EXPECT_EQ(ended, 3);
  // What comes all the same lands nowhere.
  std::vector<std::byte> out = bytes_of(100, 3);
  boxes[2]->send(Rank{0}, {1, 0}, region(out), counting());
  world.run_for(1s);
  EXPECT_EQ(more, std::vector<std::byte>(100));
}

TEST_F(MailboxTest, ALongWaitSaysWhomItIsForAndEndsAtItsLimit) {
  std::vector<std::byte> memory(100);
  boxes[0]->receive(Rank{2}, {8, 11}, region(memory), counting());
  world.run_for(3s);
  EXPECT_THAT(boxes[0]->overdue(2s, 4), ::testing::ElementsAre(HasSubstr("rank 0 waits for rank 2 in a collective operation (message 11 of channel 8)")));
  EXPECT_EQ(ended, 0);
  world.run_for(60s);
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("gave up: rank 0 waits for rank 2"));
}

TEST_F(MailboxTest, WhatNobodyIsReadyForIsRefused) {
  std::vector<std::byte> payload(100);
  runtime::Frame frame;
  frame.parts.push_back({.type = wire::FrameType::kMessage, .tensor = TensorId{1}, .iteration = 0, .bytes = 100});
  frame.payload.push_back({region(payload), 0, 100});
  world.at(members[1]).send({members[0], runtime::Lane{0}}, std::move(frame), nullptr);
  world.run_for(1s);
  ASSERT_FALSE(world.at(members[0]).protocol_errors().empty());
  EXPECT_THAT(world.at(members[0]).protocol_errors().front().message, HasSubstr("a message for which nobody here was ready"));
}

}  // namespace
}  // namespace poseidon::collective
