#include "plan/plan_sequence.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::plan {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kSequenceVersion = 1;

Error invalid(std::string text) { return Error{ErrorCode::kInvalid, "the plans cannot be used: " + std::move(text)}; }

Result<PlanVersion> parse_version(const json& entry, const Model& model, int workers, const PlanSequence& before) {
  const std::string which = base::concat("version ", before.size());
  if (!entry.is_object()) return invalid(which + " is no object");
  const json from = entry.value("from", json());
  const bool is_natural = from.is_number_integer() && (from.is_number_unsigned() || from.get<std::int64_t>() >= 0);
  if (!is_natural) return invalid(which + " needs \"from\": the iteration from which it is in force");
  const Iteration iteration = from.get<Iteration>();
  if (before.empty() && iteration != 0) return invalid(base::concat("the first version is in force from ", iteration, ", it must be from 0"));
  if (!before.empty() && iteration <= before.back().from) {
    return invalid(base::concat(which, " is in force from ", iteration, ", the one before it from ", before.back().from));
  }
  Result<Plan> plan = parse_plan(entry.value("plan", json()).dump(), model, workers);
  if (!plan) return Error{plan.error().code, base::concat(which, ": ", plan.error().message)};
  return PlanVersion{iteration, std::move(*plan)};
}

}  // namespace

std::string to_json(const PlanSequence& versions) {
  POSEIDON_CHECK(!versions.empty(), "a sequence of no plans");
  if (versions.size() == 1) return to_json(versions.front().plan);
  ordered_json entries = ordered_json::array();
  for (const PlanVersion& version : versions) {
    entries.push_back({{"from", version.from}, {"plan", ordered_json::parse(to_json(version.plan))}});
  }
  return ordered_json{{"poseidon_plans", kSequenceVersion}, {"versions", entries}}.dump(2) + "\n";
}

Result<PlanSequence> parse_plan_sequence(std::string_view text, const Model& model, int workers) {
  try {
    const json document = json::parse(text, nullptr, false);
    const bool is_sequence = document.is_object() && document.contains("poseidon_plans");
    if (!is_sequence) {
      // Also what is no JSON at all: a plan's own parser says so best.
      Result<Plan> plan = parse_plan(text, model, workers);
      if (!plan) return plan.error();
      return PlanSequence{{0, std::move(*plan)}};
    }
    if (document.at("poseidon_plans") != kSequenceVersion) {
      return invalid(base::concat("their format is ", document.at("poseidon_plans").dump(), ", this version reads ", kSequenceVersion));
    }
    const json entries = document.value("versions", json::array());
    if (!entries.is_array() || entries.empty() || entries.size() > kPlanVersionsMax) {
      return invalid(base::concat("\"versions\" must be a list of 1 to ", kPlanVersionsMax));
    }
    PlanSequence versions;
    for (const json& entry : entries) {
      Result<PlanVersion> version = parse_version(entry, model, workers, versions);
      if (!version) return version.error();
      versions.push_back(std::move(*version));
    }
    return versions;
  } catch (const json::exception& e) {
    return invalid(e.what());
  }
}

std::string difference(const Plan& from, const Plan& to) {
  constexpr std::size_t kNamedMax = 6;
  const auto text = [](const LayerPlan& layer) {
    std::string words(to_string(layer.scheme));
    if (layer.scheme == Scheme::kBlock) words += base::concat(" ", layer.grid.rows, "x", layer.grid.cols);
    if (layer.scheme == Scheme::kAdam) words += base::concat(" at rank ", index(layer.owner));
    return words;
  };
  std::string words;
  std::size_t differ = 0;
  for (std::size_t l = 0; l < from.layers.size(); ++l) {
    if (from.layers[l] == to.layers[l] || ++differ > kNamedMax) continue;
    words += base::concat(words.empty() ? "" : ", ", from.layers[l].name, " ", text(from.layers[l]), " -> ", text(to.layers[l]));
  }
  if (differ > kNamedMax) words += base::concat(" and ", differ - kNamedMax, " more");
  if (from.server_shares != to.server_shares) words += base::concat(words.empty() ? "" : ", ", "other shares of the dense layers");
  return words;
}

std::size_t version_at(const PlanSequence& versions, Iteration iteration) {
  const auto after = std::upper_bound(versions.begin(), versions.end(), iteration,
                                      [](Iteration at, const PlanVersion& version) { return at < version.from; });
  return after == versions.begin() ? 0 : static_cast<std::size_t>(after - versions.begin()) - 1;
}

}  // namespace poseidon::plan
