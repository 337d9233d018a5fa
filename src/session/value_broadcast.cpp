#include "session/value_broadcast.h"

#include <algorithm>
#include <utility>

namespace poseidon::session {
namespace {

// A smaller slice is not worth its frames.
constexpr std::size_t kSliceBytesMin = 4 * 1024;
// A larger one would keep the next worker waiting.
constexpr std::size_t kSliceBytesMax = 1024 * 1024;
// So that no number is cut in two, and memory is written in whole lines.
constexpr std::size_t kAlignment = 64;

}  // namespace

ValueBroadcast::ValueBroadcast(runtime::Transport& transport, runtime::Outbox& outbox, std::vector<Member> workers, Rank self)
    : transport_(transport), outbox_(outbox), workers_(std::move(workers)), self_(static_cast<std::size_t>(index(self))) {}

void ValueBroadcast::start(const std::vector<TensorView>& values, const std::vector<std::uint32_t>& places, std::function<void()> done) {
  done_ = std::move(done);
  left_ = 1;
  const std::size_t others = workers_.size() - 1;
  for (std::size_t t = 0; t < values.size(); ++t) {
    const std::size_t bytes = values[t].bytes;
    const Range whole{TensorId{static_cast<std::uint32_t>(t)}, places[t], runtime::Region::of(values[t]), 0, bytes};
    if (bytes >= others * kSliceBytesMin && others > 1) {
      for (std::size_t begin = 0; begin < bytes; begin += others * kSliceBytesMax) {
        Range block = whole;
        block.begin = begin;
        block.end = std::min(bytes, begin + others * kSliceBytesMax);
        spread(block);
      }
    } else if (bytes > 0 && self_ != 0) {
      expect(0, whole, nullptr);
    } else if (bytes > 0) {
      for (std::size_t to = 1; to <= others; ++to) send(to, whole);
    }
  }
  one_done();
}

std::size_t ValueBroadcast::slice_begin(const Range& range, std::size_t rank) const {
  const std::size_t others = workers_.size() - 1;
  const std::size_t bytes = range.end - range.begin;
  return rank > others ? range.end : range.begin + bytes * (rank - 1) / others / kAlignment * kAlignment;
}

ValueBroadcast::Range ValueBroadcast::slice(const Range& range, std::size_t rank) const {
  Range found = range;
  found.begin = slice_begin(range, rank);
  found.end = slice_begin(range, rank + 1);
  return found;
}

void ValueBroadcast::spread(const Range& range) {
  for (std::size_t rank = 1; rank < workers_.size(); ++rank) {
    const Range of = slice(range, rank);
    if (of.begin == of.end) continue;
    if (self_ == 0) {
      send(rank, of);
    } else if (rank != self_) {
      expect(rank, of, nullptr);
    } else {
      expect(0, of, [this, of] {
        for (std::size_t to = 1; to < workers_.size(); ++to) {
          if (to != self_) send(to, of);
        }
      });
    }
  }
}

void ValueBroadcast::send(std::size_t to, const Range& range) {
  ++left_;
  wire::PartHeader part;
  part.type = wire::FrameType::kValue;
  part.tensor = range.tensor;
  outbox_.enqueue({.to = workers_[to],
                   .priority = {0, range.place, runtime::SendClass::kPush},
                   .part = part,
                   .begin = range.begin,
                   .source = runtime::Layout::contiguous(range.memory, range.begin, range.end - range.begin),
                   .hold = nullptr,
                   .on_sent = [alive = weak_from_this()] {
                     if (const auto self = alive.lock()) self->one_done();
                   }});
}

void ValueBroadcast::expect(std::size_t from, const Range& range, std::function<void()> on_come) {
  ++left_;
  const auto bytes_left = std::make_shared<std::size_t>(range.end - range.begin);
  transport_.expect(workers_[from], {wire::FrameType::kValue, range.tensor, 0},
                    {range.begin, range.end, runtime::Layout::contiguous(range.memory, range.begin, range.end - range.begin),
                     [alive = weak_from_this(), bytes_left, on_come = std::move(on_come)](Member, const wire::PartHeader& part) {
                       const auto self = alive.lock();
                       *bytes_left -= part.bytes;
                       if (!self || *bytes_left > 0) return;
                       if (on_come) on_come();
                       self->one_done();
                     },
                     {}});
}

void ValueBroadcast::one_done() {
  if (--left_ == 0) std::exchange(done_, nullptr)();
}

}  // namespace poseidon::session
