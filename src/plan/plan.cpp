#include "plan/plan.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "plan/hosts.h"

namespace poseidon::plan {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kPlanVersion = 1;
constexpr std::size_t kNodesMax = 65'536;
constexpr std::uint64_t kShareMax = 1'000'000;

Error invalid(std::string text) { return Error{ErrorCode::kInvalid, "the plan cannot be used: " + std::move(text)}; }

// "hosts": every worker once.
Result<HostGroups> parse_hosts(const json& document, int workers) {
  HostGroups hosts;
  const json groups = document.value("hosts", json::array());
  const Error wrong = invalid(base::concat("its \"hosts\" must name each rank from 0 to ", workers - 1,
                                           " once: the ranks of a host in their order, the hosts in the order of their first ranks"));
  if (!groups.is_array() || groups.size() > static_cast<std::size_t>(workers)) return wrong;
  std::vector<bool> seen(static_cast<std::size_t>(workers), false);
  std::size_t named = 0;
  for (const json& group : groups) {
    if (!group.is_array() || group.empty()) return wrong;
    std::vector<Rank> ranks;
    for (const json& entry : group) {
      const std::int64_t rank = entry.is_number_integer() ? entry.get<std::int64_t>() : -1;
      if (rank < 0 || rank >= workers || seen[static_cast<std::size_t>(rank)]) return wrong;
      if (!ranks.empty() && rank < index(ranks.back())) return wrong;
      seen[static_cast<std::size_t>(rank)] = true;
      ++named;
      ranks.push_back(Rank{static_cast<std::int32_t>(rank)});
    }
    if (!hosts.empty() && ranks.front() < hosts.back().front()) return wrong;
    hosts.push_back(std::move(ranks));
  }
  if (!hosts.empty() && named != static_cast<std::size_t>(workers)) return wrong;
  if (hosts.size() == static_cast<std::size_t>(workers)) hosts.clear();  // nobody has company
  return hosts;
}

// One entry of "layers". `spec` is the model's layer of that place. `nodes`: how many the network sees: workers, or hosts.
Result<LayerPlan> parse_layer(const json& entry, const Model& model, const LayerSpec& spec, int nodes, bool hosts) {
  if (!entry.is_object()) return invalid("each of its layers must be an object");
  const std::string name = entry.value("name", "");
  if (name != spec.name) {
    return invalid(base::concat("it names layer \"", name, "\" where the model has \"", spec.name, "\""));
  }
  Result<Scheme> scheme = parse_scheme(entry.value("scheme", ""));
  if (!scheme) return invalid(base::concat("layer ", name, ": ", scheme.error().message));
  LayerPlan layer{name, *scheme, {}, Rank{0}};
  if (layer.scheme != Scheme::kPs && !factor_size(model, spec)) {
    return invalid(base::concat("layer ", name, " has no sufficient factors, so only ps is possible"));
  }
  if (layer.scheme == Scheme::kBlock) {
    const json grid = entry.value("grid", json::array());
    if (!grid.is_array() || grid.size() != 2 || !grid[0].is_number_integer() || !grid[1].is_number_integer()) {
      return invalid(base::concat("layer ", name, " needs \"grid\": [rows, columns]"));
    }
    layer.grid = {grid[0].get<int>(), grid[1].get<int>()};
    if (layer.grid.rows < 1 || layer.grid.cols < 1 || layer.grid.rows > nodes || nodes % layer.grid.rows != 0 ||
        layer.grid.cols != nodes / layer.grid.rows) {
      return invalid(base::concat("layer ", name, ": a grid of ", layer.grid.rows, " x ", layer.grid.cols,
                                  " owners is not one of ", nodes, hosts ? " hosts" : " workers"));
    }
    const LayerSize size = *factor_size(model, spec);
    if (size.rows < static_cast<std::uint64_t>(layer.grid.rows) || size.cols < static_cast<std::uint64_t>(layer.grid.cols)) {
      return invalid(base::concat("layer ", name, ": its ", size.rows, " x ", size.cols, " matrix is too small for that grid"));
    }
  }
  if (layer.scheme == Scheme::kAdam) {
    const json owner = entry.value("owner", json());
    if (!owner.is_number_integer() || owner.get<int>() < 0 || owner.get<int>() >= nodes) {
      return invalid(base::concat("layer ", name, " needs \"owner\": ", hosts ? "the number of a host" : "a rank", " from 0 to ", nodes - 1));
    }
    layer.owner = Rank{owner.get<int>()};
  }
  return layer;
}

// "server_shares", by node. `workers`: or hosts, `has_hosts`, which alone serve each other.
Result<std::vector<std::uint32_t>> parse_shares(const json& entries, int workers, bool has_hosts) {
  if (has_hosts && (!entries.is_array() || entries.size() != static_cast<std::size_t>(workers))) {
    return invalid(base::concat("its \"server_shares\" must be a list of its ", workers,
                                " hosts' shares: workers that combine in shared memory have no dedicated servers"));
  }
  if (!entries.is_array() || entries.size() < static_cast<std::size_t>(workers) || entries.size() > kNodesMax) {
    return invalid(base::concat("its \"server_shares\" must be a list of ", workers,
                                " workers' shares, and after them the dedicated servers'"));
  }
  std::vector<std::uint32_t> shares;
  for (const json& entry : entries) {
    if (!entry.is_number_unsigned() || entry.get<std::uint64_t>() > kShareMax) {
      return invalid(base::concat("\"server_shares\": ", entry.dump(), " is no whole number from 0 to ", kShareMax));
    }
    shares.push_back(entry.get<std::uint32_t>());
  }
  if (std::all_of(shares.begin(), shares.end(), [](std::uint32_t share) { return share == 0; })) {
    return invalid("by its \"server_shares\" nobody serves");
  }
  return shares;
}

Result<DType> parse_wire(const json& name) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    if (name == to_string(dtype)) return dtype;
  }
  return invalid(base::concat("its \"wire\" is ", name.dump(), ": it must be \"bfloat16\" or \"float16\", or left out"));
}

}  // namespace

std::string node_name(Rank node, int workers, const std::vector<Rank>& leaders) {
  if (index(node) >= workers) return base::concat("server ", index(node) - workers);
  return base::concat("rank ", index(leaders.empty() ? node : leaders[static_cast<std::size_t>(index(node))]));
}

Result<Scheme> parse_scheme(std::string_view name) {
  for (const Scheme scheme : {Scheme::kPs, Scheme::kSfb, Scheme::kAdam, Scheme::kBlock}) {
    if (name == to_string(scheme)) return scheme;
  }
  const std::array<std::string, 4> names = {"ps", "sfb", "adam", "block"};
  return Error{ErrorCode::kInvalid, base::concat("\"", name, "\" is no scheme: there are ps, sfb, adam and block",
                                                 base::did_you_mean(name, names))};
}

std::optional<LayerSize> factor_size(const Model& model, const LayerSpec& layer) {
  if (layer.factor_rows == 0) return std::nullopt;
  const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
  return LayerSize{static_cast<std::uint64_t>(weight.shape[0]), static_cast<std::uint64_t>(weight.shape[1]),
                   layer.factor_rows, layer.tensors.size() > 1};
}

DType on_wire(DType dtype, std::optional<DType> wire) { return wire && dtype == DType::kFloat32 ? *wire : dtype; }

Model model_on_wire(const Model& model, int workers, std::optional<DType> wire) {
  Model narrowed = model;
  if (workers == 1) return narrowed;
  for (TensorSpec& tensor : narrowed.tensors) tensor.dtype = on_wire(tensor.dtype, wire);
  return narrowed;
}

std::string to_json(const Plan& plan) {
  ordered_json layers = ordered_json::array();
  for (const LayerPlan& layer : plan.layers) {
    ordered_json entry = {{"name", layer.name}, {"scheme", to_string(layer.scheme)}};
    if (layer.scheme == Scheme::kBlock) entry["grid"] = {layer.grid.rows, layer.grid.cols};
    if (layer.scheme == Scheme::kAdam) entry["owner"] = index(layer.owner);
    layers.push_back(std::move(entry));
  }
  ordered_json document = {{"poseidon_plan", kPlanVersion}, {"workers", plan.workers}, {"devices_per_node", plan.devices_per_node}};
  if (!plan.server_shares.empty()) document["server_shares"] = plan.server_shares;
  if (plan.chunk_bytes != kChunkBytes) document["chunk_bytes"] = plan.chunk_bytes;
  if (plan.wire) document["wire"] = to_string(*plan.wire);
  if (!plan.hosts.empty()) {
    document["hosts"] = ordered_json::array();
    for (const std::vector<Rank>& group : plan.hosts) {
      ordered_json ranks = ordered_json::array();
      for (const Rank rank : group) ranks.push_back(index(rank));
      document["hosts"].push_back(std::move(ranks));
    }
  }
  document["layers"] = std::move(layers);
  return document.dump(2) + "\n";
}

Result<Plan> parse_plan(std::string_view text, const Model& model, int workers) {
  try {
    const json document = json::parse(text);
    if (!document.is_object() || document.value("poseidon_plan", 0) != kPlanVersion) {
      return invalid(base::concat("it does not begin with \"poseidon_plan\": ", kPlanVersion));
    }
    if (const int made_for = document.value("workers", 0); made_for != workers) {
      return invalid(base::concat("it was made for ", made_for, " workers, this job has ", workers));
    }
    // Plans of before this field was reserved do not have it.
    if (const json devices = document.value("devices_per_node", json(1)); devices != 1) {
      return invalid(base::concat("its \"devices_per_node\" is ", devices.dump(), ", and each worker drives one device now: only 1 is possible"));
    }
    const json layers = document.value("layers", json::array());
    if (!layers.is_array() || layers.size() != model.layers.size()) {
      return invalid(base::concat("it has ", layers.size(), " layers, the model has ", model.layers.size(), " with parameters"));
    }
    Result<HostGroups> hosts = parse_hosts(document, workers);
    if (!hosts) return hosts.error();
    Plan plan{.workers = workers, .layers = {}, .hosts = std::move(*hosts)};
    if (document.contains("server_shares")) {
      Result<std::vector<std::uint32_t>> shares = parse_shares(document["server_shares"], nodes_of(plan), !plan.hosts.empty());
      if (!shares) return shares.error();
      plan.server_shares = std::move(*shares);
    }
    const json chunk_bytes = document.value("chunk_bytes", json(kChunkBytes));
    if (!chunk_bytes.is_number_unsigned() || chunk_bytes < kChunkBytesLeast || chunk_bytes > kChunkBytesMost) {
      return invalid(base::concat("its \"chunk_bytes\" is ", chunk_bytes.dump(), ", and no whole number from ", kChunkBytesLeast, " to ", kChunkBytesMost));
    }
    plan.chunk_bytes = chunk_bytes;
    if (document.contains("wire")) {
      Result<DType> wire = parse_wire(document["wire"]);
      if (!wire) return wire.error();
      plan.wire = *wire;
    }
    for (std::size_t i = 0; i < layers.size(); ++i) {
      Result<LayerPlan> layer = parse_layer(layers[i], model, model.layers[i], nodes_of(plan), !plan.hosts.empty());
      if (!layer) return layer.error();
      plan.layers.push_back(std::move(*layer));
    }
    return plan;
  } catch (const json::exception& e) {
    const std::string_view words = e.what();  // "[json.exception.parse_error.101] parse error at line 1, ..."
    const std::size_t tag = words.starts_with("[") ? words.find("] ") : words.npos;
    return invalid(std::string(tag == words.npos ? words : words.substr(tag + 2)));
  }
}

}  // namespace poseidon::plan
