#include "runtime/sink_table.h"

#include <utility>

#include "base/text.h"

namespace poseidon::runtime {

std::size_t SinkTable::KeyHash::operator()(const Key& key) const {
  std::uint64_t hash = key.member;
  for (const std::uint64_t value : {std::uint64_t{index(key.tag.tensor)}, key.tag.iteration,
                                    static_cast<std::uint64_t>(key.tag.type)}) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return hash;
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
  const auto [entry, is_first] = first_.try_emplace(place.key, number);
  if (!is_first) {
    std::uint32_t last = entry->second;
    while (places_[last].next != kNone) last = places_[last].next;
    places_[last].next = number;
  }
  ++expected_;
  return SinkId{std::uint64_t{place.uses} << 32 | number};
}

void SinkTable::take_out(std::uint32_t number) {
  const auto found = first_.find(places_[number].key);
  std::uint32_t* link = &found->second;
  while (*link != number) link = &places_[*link].next;
  *link = places_[number].next;
  if (found->second == kNone) first_.erase(found);
  places_[number].is_open = false;
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
  free(place_of(id));
}

void SinkTable::set_acceptor(wire::FrameType type, AcceptFn accept) {
  acceptors_[static_cast<std::size_t>(type)] = std::move(accept);
}

Result<Landing> SinkTable::land(Member from, const wire::PartHeader& part) {
  Landing landing;
  landing.part_ = part;
  landing.table_ = this;
  if (const auto found = first_.find({index(from), {part.type, part.tensor, part.iteration}}); found != first_.end()) {
    for (std::uint32_t number = found->second; number != kNone; number = places_[number].next) {
      Place& place = places_[number];
      const bool is_inside = part.offset >= place.begin && part.offset + part.bytes <= place.end;
      // An absent part stands for the whole chunk.
      const std::uint64_t uses = (part.flags & wire::kAbsent) != 0 ? place.bytes_left : part.bytes;
      if (!is_inside || uses > place.bytes_left) continue;
      place.layout.slices(part.offset - place.begin, part.offset - place.begin + part.bytes, landing.slices_);
      landing.sink_ = SinkId{std::uint64_t{place.uses} << 32 | number};
      ++place.arriving;
      place.bytes_left -= uses;
      if (place.bytes_left == 0) take_out(number);
      return landing;
    }
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
