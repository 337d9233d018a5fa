// What the members agree on before they train: each layer's scheme, and who serves. Versioned data, equal on all members, and
// applied by all at the same iteration. A plan's schemes fix every bit of the result; the rest (servers, order of arrival,
// priorities, transport) changes none.
//
// Nodes are numbered: the P workers by rank, 0 to P-1, then the dedicated servers, from P on.
//
// As JSON, for --plan:
//   {"poseidon_plan": 1, "workers": 4, "devices_per_node": 1,
//    "layers": [{"name": "ip1", "scheme": "block", "grid": [2, 2]}, {"name": "ip2", "scheme": "adam", "owner": 0}, ...]}
// and, where not all workers serve alike, e.g. with two dedicated servers, which own 300,000 parts of a million each:
//    "server_shares": [100000, 100000, 100000, 100000, 300000, 300000]
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
  Grid grid;       // kBlock: rows × cols = workers
  Rank owner{0};   // kAdam

  friend bool operator==(const LayerPlan&, const LayerPlan&) = default;
};

struct Plan {
  int workers = 1;
  std::vector<LayerPlan> layers;  // as Model::layers
  // How many devices of one node would add their gradients up before anything leaves the node. Adding there first changes the
  // last bits of a sum, so it has its place in the plan; today it is always 1, and left out in a text it means 1.
  int devices_per_node = 1;
  // By node: how large a part of the dense bytes it owns, in proportion to the others (parts of a million where we made it); 0:
  // it serves nothing. Empty: every worker serves, all alike, and there is no other server.
  std::vector<std::uint32_t> server_shares;

  // Workers and dedicated servers.
  int nodes() const { return server_shares.empty() ? workers : static_cast<int>(server_shares.size()); }

  friend bool operator==(const Plan&, const Plan&) = default;
};

std::string to_json(const Plan& plan);
// kInvalid, saying where, when the text is no plan, or one for another model or another number of workers.
Result<Plan> parse_plan(std::string_view json, const Model& model, int workers);

// "rank 3", or "server 1" for the second dedicated server.
std::string node_name(Rank node, int workers);

Result<Scheme> parse_scheme(std::string_view name);

// The layer's size where it may travel as factors; nothing where it cannot (LayerSpec::factor_rows is 0).
std::optional<LayerSize> factor_size(const Model& model, const LayerSpec& layer);

}  // namespace poseidon::plan
