// The choice of a scheme for each layer: what the user asked for, else the least predicted time.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/cost_model.h"
#include "plan/plan.h"

namespace poseidon::plan {

// What --scheme says: one scheme for all layers that can take it (nothing: auto), and exceptions by layer name. Words are
// separated by commas: "auto", "sfb", "block,ip2=ps".
struct SchemeRequest {
  std::optional<Scheme> all;
  std::map<std::string, Scheme> by_layer;
};
Result<SchemeRequest> parse_scheme_request(std::string_view text);

// One layer's row of the table: a prediction for every scheme that it can take.
struct LayerChoice {
  std::string name;
  std::optional<LayerSize> factors;                        // nothing: dense, only ps
  std::uint64_t parameters = 0;
  std::array<std::optional<Prediction>, 4> predictions;    // by Scheme
  LayerPlan chosen;
  bool requested = false;                                  // by the user, not by time
};

// kInvalid when a layer that the request names does not exist (with near matches) or cannot take the scheme asked for.
// `alike`: all workers compute the same bits from the same factors. Where they do not, sfb is not offered, since every worker
// multiplies for itself there and the replicas would drift apart. `serving`: as in predict().
Result<std::vector<LayerChoice>> choose(const Model& model, int workers, const SchemeRequest& request, const Speeds& speeds,
                                        bool alike = true, const ServerShares* serving = nullptr);

Plan plan_of(const std::vector<LayerChoice>& choices, int workers);

// The table of choices for people: bytes that all workers send per iteration under every scheme, and the predicted times.
std::string choice_table(const std::vector<LayerChoice>& choices, int workers, const Speeds& speeds);
// Who serves how much of the dense layers, as a line for people; nothing where all workers serve alike.
std::string serving_text(const Plan& plan);

}  // namespace poseidon::plan
