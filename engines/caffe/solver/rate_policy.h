// The learning rate as a function of the iteration: Caffe's lr_policy.
#pragma once

#include <string_view>
#include <vector>

#include "engines/caffe/proto/message.h"
#include "poseidon/types.h"

namespace poseidon::caffe {

struct RatePolicy {
  enum class Kind : std::uint8_t {
    kFixed,      // base
    kStep,       // base · gamma^floor(i / step_iterations)
    kExp,        // base · gamma^i
    kInv,        // base · (1 + gamma · i)^(-power)
    kMultistep,  // base · gamma^(number of `steps` that are at most i)
    kPoly,       // base · (1 - i / max_iterations)^power
    kSigmoid,    // base / (1 + e^(-gamma · (i - step_iterations)))
  };
  Kind kind = Kind::kFixed;
  double base = 0;
  double gamma = 0;
  double power = 0;
  Iteration step_iterations = 0;
  std::vector<Iteration> steps = {};  // ascending
  Iteration max_iterations = 0;
};

std::string_view to_string(RatePolicy::Kind kind);  // as lr_policy has it: "inv"

double rate_at(const RatePolicy& policy, Iteration iteration);
// How many of `steps` the iteration has reached.
std::size_t steps_reached(const RatePolicy& policy, Iteration iteration);

// From a SolverParameter. Throws ConfigError with the position of what is missing or makes no sense.
RatePolicy read_rate_policy(const proto::Message& solver);

}  // namespace poseidon::caffe
