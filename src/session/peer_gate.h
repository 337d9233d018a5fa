// A server's gate, as a worker knows it: which chunks may be pushed there (store/gate.h closes and opens it).
//
// Lane only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "wire/gate.h"

namespace poseidon::session {

class PeerGate {
 public:
  // False when the news are older than what is known, and change nothing.
  bool hear(const wire::GateNews& news) {
    if (news.closing < closing_ || (news.closing == closing_ && !closed_)) return false;
    if (news.closing > closing_ || news.open) admitted_.clear();
    closing_ = news.closing;
    closed_ = !news.open;
    for (const wire::ChunkName& chunk : news.admitted) {
      Iteration& last = admitted_[{index(chunk.tensor), chunk.offset}];
      last = std::max(last, chunk.iteration);
    }
    return true;
  }
  bool is_closed() const { return closed_; }
  // The newest closing heard of; 0 before the first.
  std::uint64_t closing() const { return closing_; }
  bool admits(const wire::ChunkName& push) const {
    if (!closed_) return true;
    const auto found = admitted_.find({index(push.tensor), push.offset});
    return found != admitted_.end() && push.iteration <= found->second;
  }

 private:
  std::uint64_t closing_ = 0;
  bool closed_ = false;
  // The last iteration for which a chunk was admitted, whichever news of it came first. Earlier ones are finished, or were never
  // pushed. At most one entry for each chunk of the server.
  std::map<std::pair<std::uint32_t, std::uint64_t>, Iteration> admitted_;
};

}  // namespace poseidon::session
