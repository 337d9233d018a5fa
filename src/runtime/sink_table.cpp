#include "runtime/sink_table.h"

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

SinkId SinkTable::expect(Member from, const Tag& tag, Sink sink) {
  const SinkId id{next_id_++};
  const Key key{index(from), tag};
  std::list<Expected>& list = expected_[key];
  const std::uint64_t bytes = sink.end - sink.begin;
  list.push_back({id, std::move(sink), bytes, std::make_shared<bool>(false)});
  where_[static_cast<std::uint64_t>(id)] = {key, std::prev(list.end())};
  return id;
}

void SinkTable::revoke(SinkId id) {
  const auto number = static_cast<std::uint64_t>(id);
  if (const auto found = where_.find(number); found != where_.end()) {
    const auto [key, entry] = found->second;
    *entry->revoked = true;
    std::list<Expected>& list = expected_[key];
    list.erase(entry);
    if (list.empty()) expected_.erase(key);
    where_.erase(found);
  } else if (const auto late = arriving_.find(number); late != arriving_.end()) {
    if (const auto flag = late->second.lock()) *flag = true;
    arriving_.erase(late);
  }
}

void SinkTable::set_acceptor(wire::FrameType type, AcceptFn accept) {
  acceptors_[static_cast<std::size_t>(type)] = std::move(accept);
}

Result<Landing> SinkTable::land(Member from, const wire::PartHeader& part) {
  Landing landing;
  landing.part_ = part;
  const Key key{index(from), {part.type, part.tensor, part.iteration}};
  if (const auto found = expected_.find(key); found != expected_.end()) {
    for (auto entry = found->second.begin(); entry != found->second.end(); ++entry) {
      const Sink& sink = entry->sink;
      const bool is_inside = part.offset >= sink.begin && part.offset + part.bytes <= sink.end;
      // An absent part stands for the whole chunk.
      const std::uint64_t uses = (part.flags & wire::kAbsent) != 0 ? entry->bytes_left : part.bytes;
      if (!is_inside || uses > entry->bytes_left) continue;
      sink.layout.slices(part.offset - sink.begin, part.offset - sink.begin + part.bytes, landing.slices_);
      landing.on_part_ = sink.on_part;
      landing.revoked_ = entry->revoked;
      entry->bytes_left -= uses;
      if (entry->bytes_left == 0) {
        landing.last_of_ = static_cast<std::uint64_t>(entry->id);
        arriving_[landing.last_of_] = entry->revoked;
        where_.erase(static_cast<std::uint64_t>(entry->id));
        found->second.erase(entry);
        if (found->second.empty()) expected_.erase(found);
      }
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
  landing.on_part_ = std::move(sink->on_part);
  landing.revoked_ = std::make_shared<bool>(false);
  return landing;
}

void SinkTable::landed(Member from, const Landing& landing) {
  if (landing.last_of_ != 0) arriving_.erase(landing.last_of_);
  if (landing.revoked() || !landing.on_part_) return;
  landing.on_part_(from, landing.part_);
}

}  // namespace poseidon::runtime
