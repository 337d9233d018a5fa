#include "session/peer_windows.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace poseidon::session {
namespace {

bool is_worker(const plan::Plan& plan, Rank node) { return index(node) < plan.workers; }

}  // namespace

// Parts of a million of the dense bytes in an iteration: a worker's gradients for what the other owns, and the sums of what the node
// owns, to a worker.
std::uint64_t NodeWindows::traffic(Rank from, Rank to) const {
  const auto share = [&](Rank node) { return std::uint64_t{plan_.server_shares[static_cast<std::size_t>(index(node))]}; };
  return (is_worker(plan_, from) ? share(to) : 0) + (is_worker(plan_, to) ? share(from) : 0);
}

NodeWindows::NodeWindows(const plan::Plan& plan) : plan_(plan) {
  // Between two workers the sum of their shares travels, between a worker and a dedicated server the server's share.
  std::multiset<std::uint64_t> of_workers;
  std::set<std::uint64_t> traffic;
  for (std::size_t node = 0; node < plan.server_shares.size(); ++node) {
    const std::uint64_t share = plan.server_shares[node];
    if (is_worker(plan, Rank{static_cast<std::int32_t>(node)})) {
      of_workers.insert(share);
    } else if (share > 0) {
      traffic.insert(share);
    }
  }
  if (of_workers.size() > 1) {
    const auto positive = of_workers.upper_bound(0);
    const auto zeros = static_cast<std::size_t>(std::distance(of_workers.begin(), positive));
    if (positive != of_workers.end()) {
      traffic.insert(zeros > 0 ? *positive : *positive + *std::next(positive));
      traffic.insert(*std::prev(of_workers.end()) + *std::prev(of_workers.end(), 2));
    }
  }
  if (traffic.size() > 1) least_ = *traffic.begin();
}

std::size_t NodeWindows::bytes(Rank from, Rank to) const {
  if (are_alike()) return kPeerWindowBytes;
  const double relative = std::min(static_cast<double>(traffic(from, to)) / static_cast<double>(least_), 1e3);
  const auto pieces = static_cast<std::size_t>(std::lround(relative * kUnlikePeerWindowBytes / wire::kPieceBytes));
  return std::clamp(pieces * wire::kPieceBytes, kUnlikePeerWindowBytes, kPeerWindowBytesMax);
}

PeerWindows::PeerWindows(const plan::Plan& plan, Rank self, const std::vector<Member>& members) {
  const NodeWindows windows(plan);
  if (windows.are_alike()) return;
  for (std::size_t to = 0; to < members.size(); ++to) unlike_[members[to]] = windows.bytes(self, Rank{static_cast<std::int32_t>(to)});
}

}  // namespace poseidon::session
