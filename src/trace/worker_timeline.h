// A worker's part of its job's timeline, where the launcher asks for one: `poseidon run --timeline` sets POSEIDON_TIMELINE.
//
// The engine's events and the stretches of the program's own threads come together in one Timeline. When the worker leaves, its part
// goes to the launcher in notes, since the two may have no folder in common.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trace/timeline.h"

namespace poseidon::trace {

class WorkerTimeline {
 public:
  // Null where the environment asks for none.
  static std::unique_ptr<WorkerTimeline> from_environment(int rank);
  explicit WorkerTimeline(int rank);

  // What the engine records into; as long as this lives.
  base::EventListener& events() { return timeline_; }
  // By TensorId. While no sum is outstanding.
  void set_tensor_names(std::vector<std::string> names) { timeline_.set_tensor_names(std::move(names)); }
  // The iteration that began last: what spans are said to be of.
  void begin(Iteration iteration) { iteration_ = iteration; }

  // A stretch of the calling thread begins, or ends. Any thread.
  void span(std::string_view name, bool is_begin);

  // The bodies of the notes, {"timeline": "..."}, in their order: slices of Timeline::part(), of whole lines.
  std::vector<std::string> notes() const;

 private:
  Timeline timeline_;
  std::atomic<Iteration> iteration_ = 0;
  std::mutex mutex_;
  std::set<std::string, std::less<>> span_names_;  // which the timeline refers to; guarded by mutex_
};

}  // namespace poseidon::trace
