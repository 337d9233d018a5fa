#include "trace/worker_timeline.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace poseidon::trace {
namespace {

// Some 200 bytes each: all of them go through the coordinator.
constexpr std::size_t kEventsMax = 80'000;
// With all its quotes escaped twice, still far below what a message may have.
constexpr std::size_t kSliceBytes = std::size_t{1} << 20;
// A name is part of each event.
constexpr std::size_t kNameBytesMax = 64;
// So that names which are made up on the way (with a number in them) do not fill the memory.
constexpr std::size_t kNamesMax = 10'000;

}  // namespace

std::unique_ptr<WorkerTimeline> WorkerTimeline::from_environment(int rank) {
  return std::getenv("POSEIDON_TIMELINE") == nullptr ? nullptr : std::make_unique<WorkerTimeline>(rank);
}

WorkerTimeline::WorkerTimeline(int rank) : timeline_({.rank = rank, .tensor_names = {}, .events_max = kEventsMax}) {}

void WorkerTimeline::span(std::string_view name, bool is_begin) {
  const base::Time now = std::chrono::steady_clock::now().time_since_epoch();
  std::string_view kept = "(more names than a timeline keeps)";
  {
    const std::lock_guard lock(mutex_);
    name = name.substr(0, kNameBytesMax);
    auto found = span_names_.find(name);
    if (found == span_names_.end() && span_names_.size() < kNamesMax) found = span_names_.emplace(name).first;
    if (found != span_names_.end()) kept = *found;
  }
  timeline_.record({is_begin ? base::EventKind::kSpanBegin : base::EventKind::kSpanEnd, now, iteration_, 0, 0, kept});
}

std::vector<std::string> WorkerTimeline::notes() const {
  const std::string part = timeline_.part();
  std::vector<std::string> slices;
  for (std::size_t begin = 0; begin < part.size();) {
    // The first line goes in any case.
    const std::size_t last = part.rfind('\n', std::min(part.size(), begin + kSliceBytes) - 1);
    const std::size_t end = last == part.npos || last < begin ? part.find('\n', begin) : last;
    const nlohmann::json note = {{"timeline", part.substr(begin, end + 1 - begin)}};
    slices.push_back(note.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    begin = end + 1;
  }
  return slices;
}

}  // namespace poseidon::trace
