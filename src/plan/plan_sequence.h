// The plans of a whole job, one after the other: which was in force from which iteration on. What `auto` writes, and what --plan
// repeats bit for bit.
//
// As JSON: a plan by itself (plan.h) where there was only one, else
//   {"poseidon_plans": 1, "versions": [{"from": 0, "plan": {"poseidon_plan": 1, ...}}, {"from": 120, "plan": {...}}, ...]}
//
// Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "plan/plan.h"

namespace poseidon::plan {

struct PlanVersion {
  Iteration from = 0;
  Plan plan;
  friend bool operator==(const PlanVersion&, const PlanVersion&) = default;
};

// The first version's `from` is 0, and each other's is higher than the one's before.
using PlanSequence = std::vector<PlanVersion>;

// A job that goes over to another plan every few seconds for a day has fewer; a file with more is no honest one.
constexpr std::size_t kPlanVersionsMax = 10'000;

std::string to_json(const PlanSequence& versions);
// kInvalid, saying where, when the text is neither a plan nor a sequence for this model and number of workers.
Result<PlanSequence> parse_plan_sequence(std::string_view json, const Model& model, int workers);

// In which layers two plans of one model differ, for people: "ip1 sfb -> block 2x2, ip2 ps -> sfb". And whether others serve.
// Empty: in nothing of that.
std::string difference(const Plan& from, const Plan& to);

// The version in force in an iteration: an index.
std::size_t version_at(const PlanSequence& versions, Iteration iteration);

}  // namespace poseidon::plan
