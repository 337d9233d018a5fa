// Which memory an arriving part belongs to: the part of a transport that is the same in every world.
//
// Lane only.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "runtime/transport.h"

namespace poseidon::runtime {

// A part that has found its memory. Between arrival of the header and of the last byte the sink may be revoked.
class Landing {
 public:
  const wire::PartHeader& part() const { return part_; }
  bool revoked() const { return *revoked_; }
  // Where the payload goes, in order; empty for a part without payload.
  const std::vector<Slice>& slices() const { return slices_; }

 private:
  friend class SinkTable;
  wire::PartHeader part_;
  std::vector<Slice> slices_;
  PartFn on_part_;
  std::shared_ptr<bool> revoked_;
  std::uint64_t last_of_ = 0;  // the sink that this part uses up
};

class SinkTable {
 public:
  SinkId expect(Member from, const Tag& tag, Sink sink);
  void revoke(SinkId id);
  void set_acceptor(wire::FrameType type, AcceptFn accept);

  // The memory for a part whose header has come.
  Result<Landing> land(Member from, const wire::PartHeader& part);
  // All its bytes are in place: tells the sink's owner.
  void landed(Member from, const Landing& landing);

  std::size_t expected() const { return where_.size(); }

 private:
  struct Key {
    std::uint32_t member;
    Tag tag;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  struct Expected {
    SinkId id;
    Sink sink;
    std::uint64_t bytes_left;  // of the range, not yet begun to arrive
    std::shared_ptr<bool> revoked;
  };

  std::unordered_map<Key, std::list<Expected>, KeyHash> expected_;
  // So that revoke() finds its entry.
  std::unordered_map<std::uint64_t, std::pair<Key, std::list<Expected>::iterator>> where_;
  // Sinks that are used up but whose last parts are still arriving: revoke() must reach these too.
  std::unordered_map<std::uint64_t, std::weak_ptr<bool>> arriving_;
  std::uint64_t next_id_ = 1;
  std::array<AcceptFn, 256> acceptors_;
};

}  // namespace poseidon::runtime
