// What the members agree on before they train: each layer's scheme, who serves, and how wide numbers are on their way.
// Versioned data, equal on all members, and applied by all at the same iteration. A plan's hosts, schemes and wire fix every bit of
// the result; the rest (servers, chunks, order of arrival, priorities, transport) changes none.
//
// Nodes are numbered: the P workers by rank, 0 to P-1, then the dedicated servers, from P on. Where workers of one host combine
// first, nodes are the hosts, in the plan's order, and there are no dedicated servers.
//
// As JSON, for --plan:
//   {"poseidon_plan": 1, "workers": 4, "devices_per_node": 1,
//    "layers": [{"name": "ip1", "scheme": "block", "grid": [2, 2]}, {"name": "ip2", "scheme": "adam", "owner": 0}, ...]}
// and, where not all workers serve alike, e.g. with two dedicated servers, which own 300,000 parts of a million each:
//    "server_shares": [100000, 100000, 100000, 100000, 300000, 300000]
// and "chunk_bytes" where chunks are not of 1 MiB,
// and "wire": "bfloat16" or "float16" where gradients are narrowed on their way;
// and, where workers of one host combine their gradients before anything leaves it, "hosts": [[0, 1], [2, 3]]: their ranks.
#pragma once

#include <cstdint>
#include <optional>
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

constexpr std::uint32_t kChunkBytes = 1 << 20;
constexpr std::uint32_t kChunkBytesLeast = 256 << 10;  // four pieces
constexpr std::uint32_t kChunkBytesMost = 64 << 20;

// The workers of each host that combine their gradients in its memory, by rank; the hosts in the order of their first workers.
using HostGroups = std::vector<std::vector<Rank>>;

struct Plan {
  int workers = 1;
  std::vector<LayerPlan> layers;  // as Model::layers
  // How many devices of one node would add their gradients up before anything leaves the node. Adding there first changes the
  // last bits of a sum, so it has its place in the plan; today it is always 1, and left out in a text it means 1.
  int devices_per_node = 1;
  // By node: how large a part of the dense bytes it owns, in proportion to the others (parts of a million where we made it); 0:
  // it serves nothing. Empty: every worker serves, all alike, and there is no other server.
  std::vector<std::uint32_t> server_shares;
  // The type in which float32 gradients travel, kBFloat16 or kFloat16; nothing: as they are.
  std::optional<DType> wire;

  // About how much of a tensor is pushed, and owned, in one (plan/partition.h): chunk_bytes_for() of the links.
  std::uint32_t chunk_bytes = kChunkBytes;

  // Empty: no groups, each worker is a node of its own (plan/hosts.h). Sums are made within each group first, in the order of
  // ranks, and then over the groups in their order, so groups change the last bits of a sum.
  HostGroups hosts;

  // What the network sees: workers, or hosts, and dedicated servers.
  int nodes() const {
    if (!server_shares.empty()) return static_cast<int>(server_shares.size());
    return hosts.empty() ? workers : static_cast<int>(hosts.size());
  }

  friend bool operator==(const Plan&, const Plan&) = default;
};

std::string to_json(const Plan& plan);
// kInvalid, saying where, when the text is no plan, or one for another model or another number of workers.
Result<Plan> parse_plan(std::string_view json, const Model& model, int workers);

// What people call a node: "rank 3", or "server 1" for the second dedicated server. Where nodes are hosts, `leaders` are the ranks
// that speak for them (plan/hosts.h), and a host is called by its leader's.
std::string node_name(Rank node, int workers, const std::vector<Rank>& leaders = {});

Result<Scheme> parse_scheme(std::string_view name);

// What a tensor of this type is on the wire: only float32 is narrowed, since float64 was asked for to be exact and what has 16
// bits is narrow already.
DType on_wire(DType dtype, std::optional<DType> wire);
// The model as the engine behind the wire has it: float32 tensors have the wire's type. Alone nothing travels, so with one worker,
// as without a wire, it is the model itself.
Model model_on_wire(const Model& model, int workers, std::optional<DType> wire);

// The layer's size where it may travel as factors; nothing where it cannot (LayerSpec::factor_rows is 0).
std::optional<LayerSize> factor_size(const Model& model, const LayerSpec& layer);

}  // namespace poseidon::plan
