// What each peer of a member may have in flight whatever the others have.
//
// Two pieces, so that one arrives while the next is on its way: with one alone the link to a peer stands still until its credit is
// back (docs/decisions/0014-two-pieces-for-each-peer.md). What a peer may have in flight is also the rate at which it is served beside
// others. Where servers own unequal shares, members have unequally much to send to each other, and peers that were served alike would
// keep the largest servers' links idle at first and wait for them at the end. There, windows are in proportion to what goes from one to
// the other in an iteration, and four pieces are the smallest of all, so that a proportion of 4 to 5 can be kept
// (docs/decisions/0017-shares-in-the-plan.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "plan/plan.h"
#include "poseidon/types.h"
#include "wire/frame.h"

namespace poseidon::session {

constexpr std::size_t kPeerWindowBytes = 2 * wire::kPieceBytes;
constexpr std::size_t kUnlikePeerWindowBytes = 4 * wire::kPieceBytes;
// However unequal the shares are: what a more urgent piece may have to wait behind.
constexpr std::size_t kPeerWindowBytesMax = 16 * wire::kPieceBytes;

// Between the nodes of a plan, which outlives it.
class NodeWindows {
 public:
  explicit NodeWindows(const plan::Plan& plan);

  // A whole number of pieces.
  std::size_t bytes(Rank from, Rank to) const;
  bool are_alike() const { return least_ == 0; }

 private:
  std::uint64_t traffic(Rank from, Rank to) const;

  const plan::Plan& plan_;
  std::uint64_t least_ = 0;  // of the traffic between any two; 0 where all are alike
};

// One node's, by member.
class PeerWindows {
 public:
  // All alike.
  PeerWindows() = default;
  // `members` are the plan's nodes, and `self` is one of them.
  PeerWindows(const plan::Plan& plan, Rank self, const std::vector<Member>& members);

  std::size_t bytes(Member peer) const {
    const auto found = unlike_.find(peer);
    return found == unlike_.end() ? kPeerWindowBytes : found->second;
  }

 private:
  std::unordered_map<Member, std::size_t> unlike_;
};

}  // namespace poseidon::session
