// What training workers tell the launcher, for the screen and the report: notes through the coordinator, as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::app {

// One element of an output of a net.
struct ScoreNote {
  std::string name;
  double value = 0;
  double loss_weight = 0;
};

// Once, from rank 0.
struct StartNote {
  std::string net;
  std::string rate_policy;  // "inv"
};

struct IterationNote {
  std::uint64_t iteration = 0;  // from 0
  double loss = 0;              // of this worker's batch
  double smoothed_loss = 0;     // the mean over the solver's average_loss iterations
  double rate = 0;
  std::uint64_t records = 0;
  double seconds = 0;           // from the beginning of its forward pass to the end of its backward pass, waits included
  bool display = false;
  std::vector<ScoreNote> outputs;  // of this worker's batch; only where `display` is
};
// Some iterations, and how long this worker has waited for sums since the start.
struct ProgressNote {
  std::vector<IterationNote> iterations;
  double wait_seconds = 0;
};

struct TestNote {
  std::uint64_t iteration = 0;
  std::uint64_t net = 0;
  std::vector<ScoreNote> scores;
  double loss = 0;
};

struct SnapshotNote {
  std::uint64_t iteration = 0;
  std::string model;
  std::string state;
};

struct LayerTraffic {
  std::string name;
  std::uint64_t bytes_sent = 0;  // payload, over all iterations
  std::uint64_t bytes_received = 0;
  bool rows = false;             // of its table the touched rows travel (aten::SessionExchange)
};
struct FinalNote {
  std::uint64_t iterations = 0;  // in this run
  std::uint64_t iteration = 0;   // reached in all
  double seconds = 0;            // from the first iteration to the end, tests and snapshots included
  double wait_seconds = 0;
  std::string digest;
  std::vector<LayerTraffic> layers;
  std::uint64_t bytes_sent = 0;  // with framing
  std::uint64_t bytes_received = 0;
  std::uint64_t staging_bytes_max = 0;
};

// A slice of a worker's part of the timeline (trace::merge_timelines); they come in their order.
struct TimelineNote {
  std::string part;
};

using TrainNote = std::variant<StartNote, ProgressNote, TestNote, SnapshotNote, TimelineNote, FinalNote>;

std::string encode(const TrainNote& note);
// kInvalid where the text is no note.
Result<TrainNote> decode_note(std::string_view text);

}  // namespace poseidon::app
