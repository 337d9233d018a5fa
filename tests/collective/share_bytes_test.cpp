// Everybody's bytes come to everybody, whatever their sizes, and nobody allocates more than was agreed on.
#include "collective/share_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "runtime/sim/sim_world.h"

namespace poseidon::collective {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

struct ShareBytes : ::testing::Test {
  ShareBytes() {
    for (const Member member : members) world.add(member);
    for (const Member a : members) {
      for (const Member b : members) {
        if (index(b) < index(a)) world.at(a).connect(b, {}, 1s);
      }
    }
    world.run_for(10ms);
    for (std::size_t rank = 0; rank < 3; ++rank) {
      boxes.push_back(std::make_unique<Mailbox>(world.at(members[rank]), world.at(members[rank]),
                                                MailboxOptions{.self = rank_of(rank), .members = members, .limits = {2s, 60s}}));
    }
  }
  ~ShareBytes() override { boxes.clear(); }

  static Rank rank_of(std::size_t rank) { return Rank{static_cast<std::int32_t>(rank)}; }
  static Bytes bytes_of(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    Bytes bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
  }
  void share(std::size_t rank, Bytes own, std::uint64_t number, std::size_t bytes_max = 1 << 20) {
    share_bytes(*boxes[rank], {.self = rank_of(rank), .workers = 3, .channel = 0, .number = number, .bytes_max = bytes_max},
                std::make_shared<const Bytes>(std::move(own)), [this, rank](Result<std::vector<Bytes>> all) {
                  ASSERT_FALSE(results[rank]) << "called twice";
                  results[rank] = std::move(all);
                });
  }

  runtime::sim::SimWorld world{{}};
  std::vector<Member> members = {Member{4}, Member{7}, Member{9}};
  std::vector<std::unique_ptr<Mailbox>> boxes;
  std::vector<std::optional<Result<std::vector<Bytes>>>> results = std::vector<std::optional<Result<std::vector<Bytes>>>>(3);
};

TEST_F(ShareBytes, GivesAllWhatEachHas) {
  const std::size_t sizes[][3] = {{1, 2, 3}, {0, 100'000, 8}, {0, 0, 0}, {70'000, 0, 1}};
  for (std::uint64_t number = 0; number < std::size(sizes); ++number) {
    for (auto& result : results) result.reset();
    std::vector<Bytes> given;
    for (std::size_t rank = 0; rank < 3; ++rank) given.push_back(bytes_of(sizes[number][rank], static_cast<unsigned>(10 * number + rank)));
    for (const std::size_t rank : {2, 0, 1}) {
      share(rank, given[rank], number);
      world.run_for(50ms);
    }
    for (std::size_t rank = 0; rank < 3; ++rank) {
      ASSERT_TRUE(results[rank] && *results[rank]) << "rank " << rank;
      for (std::size_t other = 0; other < 3; ++other) EXPECT_EQ((**results[rank])[other], other == rank ? Bytes() : given[other]);
    }
  }
}

TEST_F(ShareBytes, TakesNoMoreThanWasAgreedOn) {
  share(0, bytes_of(10, 1), 0, 10);
  share(1, bytes_of(11, 2), 0, 11);
  share(2, bytes_of(10, 3), 0, 11);
  world.run_for(1s);
  ASSERT_TRUE(results[0] && !*results[0]);
  EXPECT_THAT(results[0]->error().message, HasSubstr("rank 1 announces 11 bytes where 10 are the most"));
}

TEST_F(ShareBytes, EndsWithTheJob) {
  share(0, bytes_of(10, 1), 0);
  world.run_for(1s);
  EXPECT_FALSE(results[0]);
  boxes[0]->fail(Error{ErrorCode::kPeerLost, "rank 1 died"});
  world.run_for(1s);
  ASSERT_TRUE(results[0] && !*results[0]);
  EXPECT_EQ(results[0]->error().message, "rank 1 died");
}

TEST_F(ShareBytes, OfOneWorkerNeedsNobody) {
  share_bytes(*boxes[0], {.self = Rank{0}, .workers = 1, .channel = 0, .number = 0, .bytes_max = 8},
              std::make_shared<const Bytes>(bytes_of(4, 1)), [this](Result<std::vector<Bytes>> all) { results[0] = std::move(all); });
  ASSERT_TRUE(results[0] && *results[0]);
  EXPECT_EQ((*results[0])->size(), 1u);
}

}  // namespace
}  // namespace poseidon::collective
