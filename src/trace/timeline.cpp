#include "trace/timeline.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"

namespace poseidon::trace {
namespace {

using nlohmann::ordered_json;

std::string_view name_of(base::EventKind kind) {
  switch (kind) {
    case base::EventKind::kGradientReady:
      return "gradient ready";
    case base::EventKind::kQueued:
      return "queued";
    case base::EventKind::kFirstByte:
      return "first byte";
    case base::EventKind::kSynced:
      return "synced";
    case base::EventKind::kUpdated:
      return "updated";
    case base::EventKind::kSpanBegin:
    case base::EventKind::kSpanEnd:
      return "";
  }
  return "";
}

double microseconds(base::Time time) { return static_cast<double>(time.count()) / 1e3; }

}  // namespace

Timeline::Timeline(TimelineOptions options) : options_(std::move(options)) {}

// Called with mutex_ held. Few threads record, so a linear search is quick.
std::uint32_t Timeline::this_thread() {
  const auto id = static_cast<std::uint64_t>(::pthread_self());
  const auto found = std::find(thread_ids_.begin(), thread_ids_.end(), id);
  if (found != thread_ids_.end()) return static_cast<std::uint32_t>(found - thread_ids_.begin());
  std::array<char, 32> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  thread_ids_.push_back(id);
  threads_.emplace_back(name.data());
  return static_cast<std::uint32_t>(thread_ids_.size() - 1);
}

void Timeline::record(const base::Event& event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() >= options_.events_max) {
    ++dropped_;
    return;
  }
  events_.push_back({event, this_thread()});
}

std::string Timeline::part() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  const auto add = [&](const ordered_json& event) { text += event.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n"; };
  add({{"ph", "M"}, {"pid", options_.rank}, {"name", "process_name"}, {"args", {{"name", base::concat("worker ", options_.rank)}}}});
  for (std::size_t t = 0; t < threads_.size(); ++t) {
    add({{"ph", "M"}, {"pid", options_.rank}, {"tid", t}, {"name", "thread_name"}, {"args", {{"name", threads_[t]}}}});
  }
  for (const Recorded& recorded : events_) {
    const base::Event& event = recorded.event;
    ordered_json line = {{"pid", options_.rank}, {"tid", recorded.thread}, {"ts", microseconds(event.time)}};
    if (event.kind == base::EventKind::kSpanBegin || event.kind == base::EventKind::kSpanEnd) {
      line["ph"] = event.kind == base::EventKind::kSpanBegin ? "B" : "E";
      line["name"] = event.name;
      line["args"] = {{"iteration", event.iteration}};
    } else {
      const std::string tensor = event.tensor < options_.tensor_names.size() ? options_.tensor_names[event.tensor] : "?";
      line["ph"] = "i";
      line["s"] = "t";
      line["cat"] = name_of(event.kind);
      line["name"] = base::concat(name_of(event.kind), " ", tensor);
      line["args"] = {{"tensor", tensor}, {"iteration", event.iteration}, {"bytes", event.bytes}};
    }
    add(line);
  }
  if (dropped_ > 0) {
    add({{"ph", "i"}, {"s", "p"}, {"pid", options_.rank}, {"tid", 0}, {"ts", events_.empty() ? 0 : microseconds(events_.back().event.time)},
         {"name", base::concat("the timeline is full: ", dropped_, " later events were not recorded")}});
  }
  return text;
}

Status Timeline::write_part(const std::filesystem::path& path) const { return base::write_file_atomically(path, part()); }

Status merge_timelines(const std::vector<std::filesystem::path>& parts, const std::filesystem::path& target) {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  bool is_first = true;
  for (const std::filesystem::path& part : parts) {
    Result<std::string> lines = base::read_file(part);
    if (!lines) continue;
    std::size_t begin = 0;
    while (begin < lines->size()) {
      const std::size_t end = std::min(lines->find('\n', begin), lines->size());
      text += is_first ? "" : ",\n";
      text.append(*lines, begin, end - begin);
      is_first = false;
      begin = end + 1;
    }
  }
  text += "\n]}\n";
  if (const Status status = base::write_file_atomically(target, text); !status) return status;
  std::error_code ignored;
  for (const std::filesystem::path& part : parts) std::filesystem::remove(part, ignored);
  return {};
}

}  // namespace poseidon::trace
