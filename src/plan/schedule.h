// How long an iteration takes under a plan, as far as the schedule of all layers tells, and the plan with which it is least.
//
// What counts is what stays exposed: a layer's bytes cost nothing while lower layers are still computing, and a product made to
// save bytes costs its time on the device even where the link would have been idle. Computing times are measured while the job
// trains (plan/profile.h), the rest when it starts (Speeds). With layers numbered from the input, for each layer l
//   f, b  seconds of its forward and backward pass, with the product of its own weight gradient whatever the scheme
//   c     seconds of one direction of the busiest link
//   r     seconds of the device for reconstruction, beyond what b holds
//   d     seconds from the last byte on the link to the sum: latencies, and r
// the iteration lasts (compare plan/bound.h, which leaves d out)
//   T = max( F + B + R, max over k of [ sum_{l >= k} (f_l + b_l) + sum_{l <= k} c_l + d_k ] )
//
// Pure functions.
#pragma once

#include <optional>
#include <vector>

#include "plan/choose.h"
#include "plan/cost_model.h"
#include "plan/plan.h"

namespace poseidon::plan {

struct ComputeTimes {
  double forward = 0;   // seconds
  double backward = 0;
  friend bool operator==(const ComputeTimes&, const ComputeTimes&) = default;
};

struct Schedule {
  const Model* model = nullptr;      // as it travels: model_on_wire
  int workers = 1;
  Speeds speeds;
  std::vector<ComputeTimes> layers;  // as Model::layers
  // Of a dense tensor, on the busiest link. Nothing: all workers serve alike, and nobody else does.
  std::optional<double> dense_seconds_per_byte;
};

// What one layer of the model costs under a scheme.
struct LayerCost {
  double link = 0;     // c
  double rebuild = 0;  // r
  double delay = 0;    // d
};
LayerCost layer_cost(const Schedule& schedule, const LayerSpec& layer, const LayerPlan& plan);

// T of a plan for this model.
double iteration_seconds(const Schedule& schedule, const Plan& plan);

// The plan with the least T. Layers that the request names keep what `present` gives them, and so does everything that is no
// scheme. Others may travel by ps, block and, where the workers compute `alike`, sfb; adam is no option, since its owner's link
// carries at least what ps puts on each. Between plans of about the same T the one with less link and reconstruction time stands.
Plan best_plan(const Schedule& schedule, const SchemeRequest& request, bool alike, const Plan& present);

// False where the request leaves nothing to choose in this model.
bool has_choice(const Model& model, int workers, const SchemeRequest& request);

}  // namespace poseidon::plan
