#include "runtime/sink_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>

namespace poseidon::runtime {
namespace {

using wire::FrameType;
using wire::PartHeader;

constexpr Member kPeer{4};

PartHeader part(std::uint64_t offset, std::uint32_t bytes, std::uint32_t tensor = 1) {
  return {.type = FrameType::kSum, .tensor = TensorId{tensor}, .iteration = 9, .offset = offset, .bytes = bytes};
}

struct Fixture : ::testing::Test {
  Fixture() : memory(1000) {}
  Sink sink(std::uint64_t begin, std::uint64_t end) {
    return {begin, end, Layout::contiguous({memory.data(), memory.size(), {}, 0}, begin, end - begin),
            [this](Member, const PartHeader& p) { told.push_back(p.offset); }};
  }
  Tag tag{FrameType::kSum, TensorId{1}, 9};
  std::vector<std::byte> memory;
  std::vector<std::uint64_t> told;
  SinkTable table;
};
using SinkTableTest = Fixture;

TEST_F(SinkTableTest, AnExpectedPartLandsInItsPlace) {
  table.expect(kPeer, tag, sink(100, 300));
  const Result<Landing> landing = table.land(kPeer, part(150, 50));
  ASSERT_TRUE(landing.ok());
  ASSERT_EQ(landing->slices().size(), 1u);
  EXPECT_EQ(landing->slices()[0].data(), memory.data() + 150);
  EXPECT_TRUE(told.empty()) << "not before the bytes are there";
  table.landed(kPeer, *landing);
  EXPECT_EQ(told, std::vector<std::uint64_t>{150});
}

TEST_F(SinkTableTest, ASinkIsUsedUpByAsManyBytesAsItHolds) {
  table.expect(kPeer, tag, sink(100, 300));
  ASSERT_TRUE(table.land(kPeer, part(200, 100)).ok());
  EXPECT_EQ(table.expected(), 1u);
  ASSERT_TRUE(table.land(kPeer, part(100, 100)).ok());
  EXPECT_EQ(table.expected(), 0u);
  EXPECT_FALSE(table.land(kPeer, part(100, 100)).ok());
}

TEST_F(SinkTableTest, OthersPeersTensorsRangesAndIterationsDoNotFit) {
  table.expect(kPeer, tag, sink(100, 300));
  EXPECT_FALSE(table.land(Member{5}, part(150, 50)).ok());
  EXPECT_FALSE(table.land(kPeer, part(150, 50, 2)).ok());
  EXPECT_FALSE(table.land(kPeer, part(50, 100)).ok()) << "begins before it";
  EXPECT_FALSE(table.land(kPeer, part(290, 20)).ok()) << "ends after it";
  PartHeader late = part(150, 50);
  late.iteration = 10;
  EXPECT_FALSE(table.land(kPeer, late).ok());
  EXPECT_EQ(table.expected(), 1u);
}

TEST_F(SinkTableTest, AnAbsentPartStandsForTheWholeRange) {
  table.expect(kPeer, tag, sink(100, 300));
  PartHeader absent = part(100, 0);
  absent.flags = wire::kAbsent;
  const Result<Landing> landing = table.land(kPeer, absent);
  ASSERT_TRUE(landing.ok());
  EXPECT_TRUE(landing->slices().empty());
  EXPECT_EQ(table.expected(), 0u);
}

TEST_F(SinkTableTest, FindsItsSinksAmongManyThatComeAndGo) {
  std::mt19937_64 random(3);
  std::map<std::pair<std::uint32_t, std::uint32_t>, SinkId> open;  // by tensor and a tenth of the range
  for (int step = 0; step < 20'000; ++step) {
    const std::pair place(static_cast<std::uint32_t>(random() % 50), static_cast<std::uint32_t>(random() % 10));
    const auto [tensor, tenth] = place;
    const bool is_open = open.contains(place);
    switch (random() % 3) {
      case 0:
        if (!is_open) open[place] = table.expect(kPeer, {FrameType::kSum, TensorId{tensor}, 9}, sink(100 * tenth, 100 * tenth + 100));
        break;
      case 1:
        if (is_open) table.revoke(open[place]);
        open.erase(place);
        break;
      default: {
        const Result<Landing> landing = table.land(kPeer, part(100 * tenth, 100, tensor));
        ASSERT_EQ(landing.ok(), is_open) << "step " << step;
        open.erase(place);
        if (!is_open) break;
        told.clear();
        table.landed(kPeer, *landing);
        ASSERT_EQ(told, std::vector<std::uint64_t>{100 * tenth});
      }
    }
    ASSERT_EQ(table.expected(), open.size());
  }
}

TEST_F(SinkTableTest, ASinkMayBeRevokedByWhatItTells) {
  SinkId id{};
  int calls = 0;
  Sink both{0, 200, Layout::contiguous({memory.data(), memory.size(), {}, 0}, 0, 200), [&](Member, const PartHeader&) {
              ++calls;
              table.revoke(id);
              table.expect(kPeer, tag, sink(0, 10));
            }};
  id = table.expect(kPeer, tag, std::move(both));
  const Result<Landing> first = table.land(kPeer, part(0, 100));
  const Result<Landing> second = table.land(kPeer, part(100, 100));
  table.landed(kPeer, *first);
  EXPECT_TRUE(second->revoked());
  table.landed(kPeer, *second);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(table.expected(), 1u) << "the new one";
}

TEST_F(SinkTableTest, ARevokedSinkHearsNothingMore) {
  const SinkId whole = table.expect(kPeer, tag, sink(0, 100));
  const Result<Landing> arriving = table.land(kPeer, part(0, 100));  // the header is there, the bytes are not
  ASSERT_TRUE(arriving.ok());
  table.revoke(whole);
  EXPECT_TRUE(arriving->revoked());
  table.landed(kPeer, *arriving);
  EXPECT_TRUE(told.empty());

  const SinkId unused = table.expect(kPeer, tag, sink(0, 100));
  table.revoke(unused);
  table.revoke(unused);
  EXPECT_FALSE(table.land(kPeer, part(0, 100)).ok());
}

TEST_F(SinkTableTest, OneForAnybodyTakesWhatItAdmitsUntilItIsRevoked) {
  Sink all = sink(0, 1000);
  all.admit = [](Member from, const PartHeader& p) { return p.offset / 100 == index(from); };
  const SinkId id = table.expect(kAnybody, tag, std::move(all));
  for (int round = 0; round < 2; ++round) {
    for (const std::uint32_t peer : {2u, 4u, 9u}) {
      const Result<Landing> landing = table.land(Member{peer}, part(100 * peer + 10, 20));
      ASSERT_TRUE(landing.ok());
      EXPECT_EQ(landing->slices()[0].data(), memory.data() + 100 * peer + 10);
      table.landed(Member{peer}, *landing);
    }
  }
  EXPECT_EQ(told, (std::vector<std::uint64_t>{210, 410, 910, 210, 410, 910}));
  EXPECT_FALSE(table.land(Member{3}, part(210, 20)).ok()) << "not admitted";
  EXPECT_FALSE(table.land(Member{9}, part(990, 20)).ok()) << "beyond the range";
  EXPECT_FALSE(table.land(Member{2}, part(210, 20, 2)).ok()) << "another tensor";
  const Result<Landing> arriving = table.land(Member{2}, part(200, 20));
  ASSERT_TRUE(arriving.ok());
  table.revoke(id);
  EXPECT_TRUE(arriving->revoked());
  EXPECT_EQ(table.expected(), 0u);
  EXPECT_FALSE(table.land(Member{2}, part(200, 20)).ok());
}

TEST_F(SinkTableTest, WhatAPeerIsExpectedToSendGoesBeforeWhatAnybodyIs) {
  Sink all = sink(0, 1000);
  int asked = 0;
  all.admit = [&asked](Member, const PartHeader&) { return ++asked > 0; };
  table.expect(kAnybody, tag, std::move(all));
  table.expect(kPeer, tag, sink(100, 200));
  ASSERT_TRUE(table.land(kPeer, part(100, 100)).ok());
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(table.expected(), 1u);
  ASSERT_TRUE(table.land(kPeer, part(100, 100)).ok());
  EXPECT_EQ(asked, 1);
}

TEST_F(SinkTableTest, TheAcceptorIsAskedForWhatNobodyExpects) {
  table.set_acceptor(FrameType::kSum, [this](Member from, const PartHeader& p) -> Result<Sink> {
    if (from != kPeer) return Error{ErrorCode::kCorruptFrame, "no"};
    return sink(0, p.tensor == TensorId{7} ? 1000 : 10);
  });
  const Result<Landing> landing = table.land(kPeer, part(300, 20, 7));
  ASSERT_TRUE(landing.ok());
  EXPECT_EQ(landing->slices()[0].data(), memory.data() + 300) << "a place in the whole message";
  EXPECT_FALSE(table.land(kPeer, part(300, 20, 8)).ok()) << "not within the acceptor's sink";
  EXPECT_EQ(table.land(Member{5}, part(0, 1)).error().message, "no");
}

}  // namespace
}  // namespace poseidon::runtime
