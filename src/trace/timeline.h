// What happened when, as a picture: collects events in memory and writes them as Chrome/Perfetto trace events, with one track
// for each thread that computes and each lane.
//
// A worker writes the part of its own process; the launcher merges the parts of all workers into one file. Open it at
// https://ui.perfetto.dev or chrome://tracing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/event.h"
#include "poseidon/error.h"

namespace poseidon::trace {

struct TimelineOptions {
  int rank = 0;
  std::vector<std::string> tensor_names;     // by TensorId
  // Then it stops recording, and says so in the file: 64 bytes an event, so 128 MB.
  std::size_t events_max = 2'000'000;
};

class Timeline : public base::EventListener {
 public:
  explicit Timeline(TimelineOptions options);

  // Before anything is recorded that names a tensor.
  void set_tensor_names(std::vector<std::string> names) { options_.tensor_names = std::move(names); }

  // Any thread. Takes a lock for some ten nanoseconds; a training iteration records a few events for each layer.
  void record(const base::Event& event) override;

  // One JSON array element a line, without the enclosing brackets: what merge_timelines() reads.
  std::string part() const;
  Status write_part(const std::filesystem::path& path) const;

 private:
  struct Recorded {
    base::Event event;
    std::uint32_t thread = 0;
  };
  std::uint32_t this_thread();

  TimelineOptions options_;
  mutable std::mutex mutex_;
  std::vector<Recorded> events_;        // guarded by mutex_
  std::vector<std::string> threads_;    // guarded by mutex_: names, in order of first appearance
  std::vector<std::uint64_t> thread_ids_;  // guarded by mutex_
  std::uint64_t dropped_ = 0;           // guarded by mutex_
};

// Writes {"traceEvents": [...]} from the parts that exist, and removes them. Missing parts (a worker that died) are left out.
Status merge_timelines(const std::vector<std::filesystem::path>& parts, const std::filesystem::path& target);

}  // namespace poseidon::trace
