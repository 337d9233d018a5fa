// A data-parallel job of replayed workers, and of the plan's dedicated servers, in virtual time: what `poseidon plan` predicts with.
//
// The engine is the real one, object file for object file; gradients have sizes and no contents. One full-duplex link a node,
// a switch that never blocks, and arithmetic at the given speeds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "poseidon/error.h"
#include "replay/replay_worker.h"

namespace poseidon::replay {

struct SimulationOptions {
  Workload workload;
  plan::Plan plan;                          // for model_of(workload.description, workload.batch)
  double link_bytes_per_second = 1.25e9;    // payload of TCP, each direction; in a dilated run of the slowed link
  runtime::Duration latency = std::chrono::microseconds(50);  // one way
  double sum_bytes_per_second = 5e9;        // read by one server's sum
  Overlap overlap = Overlap::kFull;
  bool priorities = true;
  int warm_up = 1;                          // iterations that are not counted
  int iterations = 2;                       // that are
  std::uint64_t seed = 1;
};

struct SimulatedLayer {
  double queued = 0;  // seconds after the iteration began: when its first gradient left the backward pass
  double synced = 0;  // when its last sum had come
};

struct SimulationResult {
  std::vector<double> iteration_seconds;  // counted ones: from one forward pass's beginning to the next one's, the mean of the workers
  double waited_seconds = 0;              // of that, by the forward pass, mean
  std::string waited_for;                 // the layer whose sums it waited for longest, in the last counted iteration; may be empty
  double device_busy = 0;                 // share of the counted time, rank 0
  double link_sent = 0;                   // share of the link's capacity in the counted time, the busiest node's, be it a server's
  double link_received = 0;
  std::vector<SimulatedLayer> layers;     // as the model's layers; of rank 0, last counted iteration
  std::uint64_t events = 0;               // of the simulation, for those who make it faster
};

// kInvalid or kTimeout with the reason where the job could not run to its end.
Result<SimulationResult> simulate(const SimulationOptions& options);

}  // namespace poseidon::replay
