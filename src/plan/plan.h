// What the workers agree on before they train: each layer's scheme. Versioned data, equal on all workers, and applied by all
// at the same iteration. A plan fixes every bit of the result; the rest (order of arrival, priorities, transport) does not.
//
// As JSON, for --plan:
//   {"poseidon_plan": 1, "workers": 4, "devices_per_node": 1,
//    "layers": [{"name": "ip1", "scheme": "block", "grid": [2, 2]}, {"name": "ip2", "scheme": "adam", "owner": 0}, ...]}
// and, where workers of one host combine their gradients before anything leaves it, "hosts": [[0, 1], [2, 3]]: their ranks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "plan/cost_model.h"
#include "poseidon/error.h"
#include "poseidon/session.h"
#include "poseidon/types.h"

namespace poseidon::plan {

struct LayerPlan {
  std::string name;
  Scheme scheme = Scheme::kPs;
  Grid grid;       // kBlock: rows × cols = workers, or hosts where there are groups
  Rank owner{0};   // kAdam: a rank, or the number of a host

  friend bool operator==(const LayerPlan&, const LayerPlan&) = default;
};

// The workers of each host that combine their gradients in its memory, by rank; the hosts in the order of their first workers.
using HostGroups = std::vector<std::vector<Rank>>;

struct Plan {
  int workers = 1;
  std::vector<LayerPlan> layers;  // as Model::layers
  // How many devices of one node would add their gradients up before anything leaves the node. Adding there first changes the
  // last bits of a sum, so it has its place in the plan; today it is always 1, and left out in a text it means 1.
  int devices_per_node = 1;
  // Empty: no groups, each worker is a node of its own (plan/hosts.h). Sums are made within each group first, in the order of
  // ranks, and then over the groups in their order, so groups change the last bits of a sum.
  HostGroups hosts;

  friend bool operator==(const Plan&, const Plan&) = default;
};

std::string to_json(const Plan& plan);
// kInvalid, saying where, when the text is no plan, or one for another model or another number of workers.
Result<Plan> parse_plan(std::string_view json, const Model& model, int workers);

Result<Scheme> parse_scheme(std::string_view name);

// The layer's size where it may travel as factors; nothing where it cannot (LayerSpec::factor_rows is 0).
std::optional<LayerSize> factor_size(const Model& model, const LayerSpec& layer);

}  // namespace poseidon::plan
