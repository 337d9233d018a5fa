#include "engines/caffe/solver/rate_policy.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using Kind = RatePolicy::Kind;

const std::map<std::string, Kind>& kinds() {
  static const std::map<std::string, Kind> table = {
      {"fixed", Kind::kFixed},         {"step", Kind::kStep}, {"exp", Kind::kExp},        {"inv", Kind::kInv},
      {"multistep", Kind::kMultistep}, {"poly", Kind::kPoly}, {"sigmoid", Kind::kSigmoid}};
  return table;
}

[[noreturn]] void fail(const proto::Message& solver, std::string_view field, const std::string& text) {
  throw ConfigError(base::concat(solver.position(field).text(), ": ", text));
}

Kind read_kind(const proto::Message& solver) {
  std::vector<std::string> names;
  for (const auto& [name, kind] : kinds()) names.push_back(name);
  const std::string name = solver.text("lr_policy");
  if (name.empty()) fail(solver, "lr_policy", "the solver needs an lr_policy: " + base::join_words(names));
  const auto entry = kinds().find(name);
  if (entry == kinds().end()) {
    fail(solver, "lr_policy",
         base::concat("there is no lr_policy \"", name, "\"", base::did_you_mean(name, names), " (there are ",
                      base::join_words(names), ")"));
  }
  return entry->second;
}

void require(const proto::Message& solver, const std::string& policy, std::initializer_list<const char*> fields) {
  for (const char* const field : fields) {
    if (!solver.has(field)) fail(solver, "lr_policy", base::concat("lr_policy \"", policy, "\" needs ", field));
  }
}

std::vector<Iteration> read_steps(const proto::Message& solver) {
  std::vector<Iteration> steps;
  for (const std::int64_t value : solver.integers("stepvalue")) {
    if (value < 0 || (!steps.empty() && static_cast<Iteration>(value) <= steps.back())) {
      throw ConfigError(base::concat(solver.position("stepvalue", steps.size()).text(),
                                     ": the stepvalues of a multistep policy must ascend, and ", value, " does not"));
    }
    steps.push_back(static_cast<Iteration>(value));
  }
  return steps;
}

}  // namespace

std::string_view to_string(RatePolicy::Kind kind) {
  return std::find_if(kinds().begin(), kinds().end(), [&](const auto& entry) { return entry.second == kind; })->first;
}

std::size_t steps_reached(const RatePolicy& policy, Iteration iteration) {
  return static_cast<std::size_t>(std::upper_bound(policy.steps.begin(), policy.steps.end(), iteration) -
                                  policy.steps.begin());
}

double rate_at(const RatePolicy& policy, Iteration iteration) {
  const auto i = static_cast<double>(iteration);
  switch (policy.kind) {
    case Kind::kFixed:
      break;
    case Kind::kStep:
      return policy.base * std::pow(policy.gamma, static_cast<double>(iteration / policy.step_iterations));
    case Kind::kExp:
      return policy.base * std::pow(policy.gamma, i);
    case Kind::kInv:
      return policy.base * std::pow(1 + policy.gamma * i, -policy.power);
    case Kind::kMultistep:
      return policy.base * std::pow(policy.gamma, static_cast<double>(steps_reached(policy, iteration)));
    case Kind::kPoly:
      return policy.base * std::pow(1 - i / static_cast<double>(policy.max_iterations), policy.power);
    case Kind::kSigmoid:
      return policy.base / (1 + std::exp(-policy.gamma * (i - static_cast<double>(policy.step_iterations))));
  }
  return policy.base;
}

RatePolicy read_rate_policy(const proto::Message& solver) {
  const Kind kind = read_kind(solver);
  const std::string name = solver.text("lr_policy");
  require(solver, name, {"base_lr"});
  switch (kind) {
    case Kind::kFixed:
      break;
    case Kind::kStep:
    case Kind::kSigmoid:
      require(solver, name, {"gamma", "stepsize"});
      break;
    case Kind::kExp:
      require(solver, name, {"gamma"});
      break;
    case Kind::kInv:
      require(solver, name, {"gamma", "power"});
      break;
    case Kind::kMultistep:
      require(solver, name, {"gamma", "stepvalue"});
      break;
    case Kind::kPoly:
      require(solver, name, {"power", "max_iter"});
      break;
  }
  const std::int64_t stepsize = solver.integer("stepsize");
  if (stepsize < (kind == Kind::kStep ? 1 : 0)) {
    fail(solver, "stepsize", base::concat("a stepsize of ", stepsize, " makes no step"));
  }
  const std::int64_t max_iter = solver.integer("max_iter");
  if (kind == Kind::kPoly && max_iter < 1)
    fail(solver, "max_iter", base::concat("lr_policy \"poly\" has nothing to do in ", max_iter, " iterations"));
  return {.kind = kind,
          .base = solver.real("base_lr"),
          .gamma = solver.real("gamma"),
          .power = solver.real("power"),
          .step_iterations = static_cast<Iteration>(stepsize),
          .steps = read_steps(solver),
          .max_iterations = static_cast<Iteration>(std::max<std::int64_t>(0, max_iter))};
}

}  // namespace poseidon::caffe
