// Which memory an arriving part belongs to: the part of a transport that is the same in every world.
//
// Lane only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/transport.h"

namespace poseidon::runtime {

class SinkTable;

// A part that has found its memory. Between arrival of the header and of the last byte the sink may be revoked. Not to be asked
// once its table is gone.
class Landing {
 public:
  const wire::PartHeader& part() const { return part_; }
  bool revoked() const;
  // Where the payload goes, in order; empty for a part without payload.
  const std::vector<Slice>& slices() const { return slices_; }

 private:
  friend class SinkTable;
  wire::PartHeader part_;
  std::vector<Slice> slices_;
  const SinkTable* table_ = nullptr;
  SinkId sink_{0};   // of those that were expected; 0: an acceptor's, which nobody can revoke
  PartFn accepted_;  // an acceptor's
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

  // Sinks that more bytes may come for.
  std::size_t expected() const { return expected_; }

 private:
  friend class Landing;
  struct Key {
    std::uint32_t member;
    Tag tag;
    friend bool operator==(const Key&, const Key&) = default;
  };
  static std::uint32_t hash_of(const Key& key);
  static constexpr std::uint32_t kNone = UINT32_MAX;
  // They come and go all the time: they lie in places that are used again. A SinkId is the place and how often it had been used before, so that an id of the past
  // is known as one.
  struct Place {
    std::uint32_t uses = 0;      // odd: in use
    std::uint32_t next = kNone;  // of the same key
    bool is_open = false;        // more parts may find it
    std::uint32_t arriving = 0;  // parts that have landed in it and whose bytes are not all there
    Key key;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t bytes_left = 0;  // of the range, not yet begun to arrive
    Layout layout;
    PartFn on_part;
    AdmitFn admit;
  };
  static std::uint32_t place_of(SinkId id) { return static_cast<std::uint32_t>(static_cast<std::uint64_t>(id)); }
  // What the part leaves to come for the sink; nothing where the sink is not for it.
  static std::optional<std::uint64_t> left_after(const Place& place, Member from, const wire::PartHeader& part);
  // The part has found its sink among those of the key.
  bool land_in(const Key& key, Member from, Landing& landing);
  // Null when the sink is used up or was revoked.
  const Place* find(SinkId id) const;
  Place* find(SinkId id) { return const_cast<Place*>(std::as_const(*this).find(id)); }
  // No part finds it any more.
  void take_out(std::uint32_t number);
  void free(std::uint32_t number);

  // A table with open addresses: the first place of each key; those of one key are linked in the order of expect(). An entry
  // stands at its hash or behind it, without a gap between.
  struct Entry {
    std::uint32_t hash = 0;
    std::uint32_t place = kNone;  // kNone: empty
  };
  // The entry of the key, or where it would stand.
  std::size_t entry_of(const Key& key, std::uint32_t hash) const;
  void grow();
  // Others move up, so that no gap is left.
  void erase_entry(std::size_t entry);

  std::vector<Entry> entries_;  // as many as a power of two; at most half of them used
  std::size_t keys_ = 0;
  std::deque<Place> places_;
  std::vector<std::uint32_t> free_;
  std::size_t expected_ = 0;
  std::array<AcceptFn, 256> acceptors_;
};

}  // namespace poseidon::runtime
