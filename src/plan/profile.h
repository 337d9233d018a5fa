// What a worker has seen of its own iterations, and the layers' computing times that follow from it.
//
// The engine is not told when a layer begins to compute. It sees when an iteration began, when each layer's gradient was handed
// in, and how long the forward pass waited for sums. The time between one gradient and the next is the backward pass of the layers
// between; all that lies before the first gradient is the forward pass and the backward pass of the layer handed in first.
//
// Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "plan/schedule.h"

namespace poseidon::plan {

// The typical iteration of a window of them. Medians: a test, a snapshot or a busy moment in one of them does not count.
struct Profile {
  std::uint64_t iteration = 0;       // the last of the window
  double iteration_seconds = 0;      // waits included
  double waited_seconds = 0;         // by the forward pass, for sums
  std::vector<ComputeTimes> layers;  // as Model::layers; waits left out
};

// One iteration: seconds since it began, by layer; nothing for a layer without a gradient.
struct Observation {
  double seconds = 0;
  double waited_seconds = 0;
  std::vector<std::optional<double>> handed_in;
};

// Per layer the seconds between its gradient and the one before it in time, and before the first of all the seconds without waits.
// A layer without a gradient has 0, and the layer handed in next has its share.
struct Gaps {
  std::vector<double> before;            // by layer
  std::optional<std::size_t> first;      // the layer handed in first: its gap begins with the iteration
};
Gaps gaps_of(const Observation& observation);

// Splits gaps into forward and backward. A backward pass is two products of the size of the forward pass's one, so f = b / 2
// for every layer; that also splits the first gap, which is F and the first layer's b.
std::vector<ComputeTimes> compute_times(const Gaps& gaps);

// The window's profile. Observations are of the same number of layers, and at least one.
Profile profile_of(std::uint64_t last_iteration, const std::vector<Observation>& window);

}  // namespace poseidon::plan
