#include "session/peer_windows.h"

#include <gtest/gtest.h>

namespace poseidon::session {
namespace {

using wire::kPieceBytes;

std::vector<Member> members(std::uint32_t count) {
  std::vector<Member> all;
  for (std::uint32_t member = 0; member < count; ++member) all.push_back(Member{member + 10});
  return all;
}

plan::Plan plan_of(int workers, std::vector<std::uint32_t> shares) {
  plan::Plan plan;
  plan.workers = workers;
  plan.server_shares = std::move(shares);
  return plan;
}

TEST(PeerWindows, AreAlikeWhereEveryWorkerServesAlike) {
  plan::Plan plan;
  plan.workers = 3;
  const PeerWindows windows(plan, Rank{1}, members(3));
  for (const Member member : members(3)) EXPECT_EQ(windows.bytes(member), 2 * kPieceBytes);
  plan.server_shares = {5, 5, 5};
  const PeerWindows same(plan, Rank{1}, members(3));
  for (const Member member : members(3)) EXPECT_EQ(same.bytes(member), 2 * kPieceBytes);
}

TEST(PeerWindows, AreInProportionToWhatGoesToThePeer) {
  // Two workers with a part in ten each, a server with three and one with five.
  const plan::Plan plan = plan_of(2, {1, 1, 3, 5});
  const std::vector<Member> all = members(4);
  // From worker 0: 1 of gradients and 1 of sums to worker 1, gradients alone to the servers.
  const PeerWindows of_worker(plan, Rank{0}, all);
  EXPECT_EQ(of_worker.bytes(all[1]), 4 * kPieceBytes);
  EXPECT_EQ(of_worker.bytes(all[2]), 6 * kPieceBytes);
  EXPECT_EQ(of_worker.bytes(all[3]), 10 * kPieceBytes);
  // From a server: its sums to each worker, in proportion to what the workers send each other.
  const PeerWindows of_server(plan, Rank{3}, all);
  EXPECT_EQ(of_server.bytes(all[0]), 10 * kPieceBytes);
  EXPECT_EQ(of_server.bytes(all[1]), 10 * kPieceBytes);
}

TEST(PeerWindows, AreAlikeWhereOnlyEqualServersServe) {
  const plan::Plan plan = plan_of(2, {0, 0, 7, 7});
  const std::vector<Member> all = members(4);
  for (const Member member : all) EXPECT_EQ(PeerWindows(plan, Rank{0}, all).bytes(member), 2 * kPieceBytes);
}

TEST(PeerWindows, WorkersThatServeNothingAreNoMeasure) {
  const plan::Plan plan = plan_of(2, {0, 0, 2, 3});
  const std::vector<Member> all = members(4);
  const PeerWindows windows(plan, Rank{0}, all);
  EXPECT_EQ(windows.bytes(all[2]), 4 * kPieceBytes);
  EXPECT_EQ(windows.bytes(all[3]), 6 * kPieceBytes);
}

TEST(PeerWindows, FollowTheRatesOfWorkersToo) {
  // One worker with a slow link serves nothing: gradients for the others' shares go to it from nobody, sums do.
  const plan::Plan plan = plan_of(3, {2, 2, 0});
  const std::vector<Member> all = members(3);
  const PeerWindows windows(plan, Rank{0}, all);
  EXPECT_EQ(windows.bytes(all[1]), 8 * kPieceBytes);
  EXPECT_EQ(windows.bytes(all[2]), 4 * kPieceBytes);
}

TEST(PeerWindows, HaveABound) {
  const plan::Plan plan = plan_of(2, {1, 1, 999'998});
  const std::vector<Member> all = members(3);
  EXPECT_EQ(PeerWindows(plan, Rank{0}, all).bytes(all[2]), kPeerWindowBytesMax);
}

}  // namespace
}  // namespace poseidon::session
