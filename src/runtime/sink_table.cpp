#include "runtime/sink_table.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace poseidon::runtime {

using wire::PartHeader;

namespace {
constexpr std::size_t kEntriesMin = 16;
}

std::uint32_t SinkTable::hash_of(const Key& key) {
  std::uint64_t hash = key.member;
  for (const std::uint64_t value : {std::uint64_t{index(key.tag.tensor)}, key.tag.iteration,
                                    static_cast<std::uint64_t>(key.tag.type)}) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return static_cast<std::uint32_t>(hash);
}

std::size_t SinkTable::entry_of(const Key& key, std::uint32_t hash) const {
  const std::size_t mask = entries_.size() - 1;
  std::size_t at = hash & mask;
  while (entries_[at].place != kNone && (entries_[at].hash != hash || !(places_[entries_[at].place].key == key))) at = (at + 1) & mask;
  return at;
}

void SinkTable::grow() {
  const std::vector<Entry> old = std::exchange(entries_, std::vector<Entry>(std::max(kEntriesMin, 2 * entries_.size())));
  const std::size_t mask = entries_.size() - 1;
  for (const Entry& entry : old) {
    if (entry.place == kNone) continue;
    std::size_t at = entry.hash & mask;
    while (entries_[at].place != kNone) at = (at + 1) & mask;
    entries_[at] = entry;
  }
}

void SinkTable::erase_entry(std::size_t gap) {
  const std::size_t mask = entries_.size() - 1;
  for (std::size_t at = (gap + 1) & mask; entries_[at].place != kNone; at = (at + 1) & mask) {
    // It may move up if the gap is not before the place where it is looked for first.
    const std::size_t wanted = entries_[at].hash & mask;
    if (((at - wanted) & mask) < ((at - gap) & mask)) continue;
    entries_[gap] = entries_[at];
    gap = at;
  }
  entries_[gap] = {};
  --keys_;
}

bool Landing::revoked() const { return static_cast<std::uint64_t>(sink_) != 0 && table_->find(sink_) == nullptr; }

const SinkTable::Place* SinkTable::find(SinkId id) const {
  const std::uint32_t number = place_of(id);
  if (number >= places_.size()) return nullptr;
  const Place& place = places_[number];
  return place.uses == static_cast<std::uint64_t>(id) >> 32 ? &place : nullptr;
}

SinkId SinkTable::expect(Member from, const Tag& tag, Sink sink) {
  std::uint32_t number = static_cast<std::uint32_t>(places_.size());
  if (free_.empty()) {
    places_.emplace_back();
  } else {
    number = free_.back();
    free_.pop_back();
  }
  Place& place = places_[number];
  ++place.uses;
  place.next = kNone;
  place.is_open = true;
  place.arriving = 0;
  place.key = {index(from), tag};
  place.begin = sink.begin;
  place.end = sink.end;
  place.bytes_left = sink.end - sink.begin;
  place.layout = sink.layout;
  place.on_part = std::move(sink.on_part);
  place.admit = std::move(sink.admit);
  if (2 * (keys_ + 1) > entries_.size()) grow();
  const std::uint32_t hash = hash_of(place.key);
  Entry& entry = entries_[entry_of(place.key, hash)];
  if (entry.place == kNone) {
    entry = {hash, number};
    ++keys_;
  } else {
    std::uint32_t last = entry.place;
    while (places_[last].next != kNone) last = places_[last].next;
    places_[last].next = number;
  }
  ++expected_;
  return SinkId{std::uint64_t{place.uses} << 32 | number};
}

void SinkTable::take_out(std::uint32_t number) {
  Place& place = places_[number];
  const std::size_t entry = entry_of(place.key, hash_of(place.key));
  std::uint32_t* link = &entries_[entry].place;
  while (*link != number) link = &places_[*link].next;
  const bool is_only = link == &entries_[entry].place && place.next == kNone;
  if (is_only) {
    erase_entry(entry);
  } else {
    *link = place.next;
  }
  place.is_open = false;
  --expected_;
}

void SinkTable::free(std::uint32_t number) {
  Place& place = places_[number];
  ++place.uses;
  free_.push_back(number);
}

void SinkTable::revoke(SinkId id) {
  Place* const place = find(id);
  if (place == nullptr) return;
  if (place->is_open) take_out(place_of(id));
  const PartFn dropped = std::move(place->on_part);
  const AdmitFn dropped_too = std::move(place->admit);
  free(place_of(id));
}

void SinkTable::set_acceptor(wire::FrameType type, AcceptFn accept) {
  acceptors_[static_cast<std::size_t>(type)] = std::move(accept);
}

std::optional<std::uint64_t> SinkTable::left_after(const Place& place, Member from, const PartHeader& part) {
  if (part.offset < place.begin || part.offset + part.bytes > place.end) return std::nullopt;
  if (place.admit) return place.admit(from, part) ? std::optional(place.bytes_left) : std::nullopt;
  // An absent part stands for the whole chunk.
  const std::uint64_t uses = (part.flags & wire::kAbsent) != 0 ? place.bytes_left : part.bytes;
  if (uses > place.bytes_left) return std::nullopt;
  return place.bytes_left - uses;
}

bool SinkTable::land_in(const Key& key, Member from, Landing& landing) {
  const PartHeader& part = landing.part_;
  for (std::uint32_t number = entries_[entry_of(key, hash_of(key))].place; number != kNone; number = places_[number].next) {
    Place& place = places_[number];
    const std::optional<std::uint64_t> left = left_after(place, from, part);
    if (!left) continue;
    place.layout.slices(part.offset - place.begin, part.offset - place.begin + part.bytes, landing.slices_);
    landing.sink_ = SinkId{std::uint64_t{place.uses} << 32 | number};
    ++place.arriving;
    place.bytes_left = *left;
    if (place.bytes_left == 0 && !place.admit) take_out(number);
    return true;
  }
  return false;
}

Result<Landing> SinkTable::land(Member from, const PartHeader& part) {
  Landing landing;
  landing.part_ = part;
  landing.table_ = this;
  const Tag tag{part.type, part.tensor, part.iteration};
  for (const Member sender : {from, kAnybody}) {
    if (keys_ > 0 && land_in({index(sender), tag}, from, landing)) return landing;
  }
  const AcceptFn& accept = acceptors_[static_cast<std::size_t>(part.type)];
  if (!accept) {
    return Error{ErrorCode::kCorruptFrame,
                 base::concat("member ", index(from), " sent bytes [", part.offset, ", ", part.offset + part.bytes,
                              ") of tensor ", index(part.tensor), ", iteration ", part.iteration, ", as frame type ",
                              static_cast<int>(part.type), ", which nobody waits for")};
  }
  Result<Sink> sink = accept(from, part);
  if (!sink) return sink.error();
  if (part.offset < sink->begin || part.offset + part.bytes > sink->end) {
    return Error{ErrorCode::kCorruptFrame, base::concat("member ", index(from), " sent bytes [", part.offset, ", ",
                                                        part.offset + part.bytes, ") of a message of ", sink->end)};
  }
  sink->layout.slices(part.offset - sink->begin, part.offset - sink->begin + part.bytes, landing.slices_);
  landing.accepted_ = std::move(sink->on_part);
  return landing;
}

void SinkTable::landed(Member from, const Landing& landing) {
  if (landing.accepted_) return landing.accepted_(from, landing.part_);
  Place* const place = find(landing.sink_);
  if (place == nullptr) return;
  --place->arriving;
  // Out of its place: what it calls may revoke the sink, or expect others.
  PartFn on_part = std::move(place->on_part);
  const bool is_last = !place->is_open && place->arriving == 0;
  if (is_last) free(place_of(landing.sink_));
  if (on_part) on_part(from, landing.part_);
  if (is_last) return;
  if (Place* const still = find(landing.sink_)) still->on_part = std::move(on_part);
}

}  // namespace poseidon::runtime
