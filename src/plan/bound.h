// The least possible iteration time of bulk-synchronous training, whatever the schedule.
//
// P nodes, one full-duplex link each. Layer l (from 0, nearest the input) computes f_l seconds forward and b_l backward, and its
// scheme keeps the link busy for c_l seconds and the device for r_l more (reconstruction). It may travel after its backward
// and must be in before its next forward, so for each k the layers k and above compute before, and those up to k travel after:
//
//   T >= max( F + B + R, max over k of [ sum_{l >= k} (f_l + b_l) + sum_{l <= k} c_l ] )
//
// Sending the lowest layer first, preemptively, attains it (with R > 0 to within half a percent).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/cost_model.h"
#include "plan/model_description.h"
#include "plan/plan.h"
#include "plan/server_shares.h"

namespace poseidon::plan {

struct LayerTimes {
  double forward = 0;   // seconds, all of them
  double backward = 0;
  double link = 0;
  double rebuild = 0;
};

double bound(std::span<const LayerTimes> layers);
// Without overlap into the next forward pass (the published wait-free backpropagation), and without any.
double bound_within_backward(std::span<const LayerTimes> layers);
double bound_without_overlap(std::span<const LayerTimes> layers);

// What the link of one node carries for a layer, sent or received (they are equal), and what it reconstructs beyond what its
// own backward pass holds. Of a dense layer, what the busiest link carries, the dedicated servers' counted.
struct SchemeCost {
  Scheme scheme = Scheme::kPs;
  Grid grid;
  double bytes = 0;
  double flops = 0;
};
// Who serves dense layers, in the best shares for equal links (server_shares).
struct Serving {
  int servers = 0;         // dedicated ones
  bool colocated = true;   // the workers serve as well
};
SchemeCost dense_cost(std::uint64_t numbers, int workers, const Serving& serving = {}, DType wire = DType::kFloat32);
// ps, sfb and, where the matrix can be cut into `workers` blocks, block; numbers travel as `wire`. Not adam: its owner's link
// carries what block spreads over all.
std::vector<SchemeCost> scheme_costs(const LayerSize& layer, int workers, const Serving& serving = {}, DType wire = DType::kFloat32);

struct BoundQuestion {
  const ModelDescription* description = nullptr;
  std::int64_t batch = 1;
  double samples_per_second = 1;  // of one worker alone
  int workers = 1;
  Serving serving;
  double link_bytes_per_second = 1.25e9;  // payload, each direction
  std::optional<Scheme> scheme;           // for all layers that can; nothing: the best for each
  DType wire = DType::kFloat32;           // in which numbers travel
};
struct BoundAnswer {
  double seconds = 0;
  std::vector<LayerTimes> layers;          // as description->layers
  std::vector<SchemeCost> schemes;         // as model_of(description).model.layers
};
// Over all combinations of schemes where few layers have a choice; else by a local search, and then perhaps a little high.
BoundAnswer least_time(const BoundQuestion& question);

}  // namespace poseidon::plan
