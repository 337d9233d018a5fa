#include "launch/cluster_file.h"

#include <array>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace poseidon::launch {
namespace {

using nlohmann::json;

Result<Placement> parse_nodes(const json& nodes, std::string_view key) {
  const Error wrong{ErrorCode::kInvalid, base::concat("\"", key, "\" must be a list of addresses: [\"10.0.0.1\", \"10.0.0.2\"]")};
  if (!nodes.is_array()) return wrong;
  if (nodes.size() > kWorkersMax) return Error{ErrorCode::kInvalid, base::concat("\"", key, "\" has more than ", kWorkersMax, " nodes")};
  Placement placement;
  for (const json& node : nodes) {
    if (!node.is_string()) return wrong;
    const std::string& host = node.get_ref<const std::string&>();
    if (!is_host(host)) return Error{ErrorCode::kInvalid, base::concat("\"", key, "\": ", node.dump(-1, ' ', true, json::error_handler_t::replace), " is no host")};
    placement.push_back(host);
  }
  return placement;
}

}  // namespace

Result<ClusterFile> parse_cluster_file(std::string_view text, const std::string& name) {
  const auto wrong = [&](const std::string& what) { return Error{ErrorCode::kInvalid, name + ": " + what}; };
  const json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) return wrong("this is no JSON");
  if (!document.is_object()) return wrong("a cluster is described by a JSON object, {\"worker_nodes\": [...]}");
  ClusterFile file;
  const std::array<std::string, 6> known = {"worker_nodes", "server_nodes", "master_node", "username", "pem_file", "virtualenv"};
  for (const auto& [key, value] : document.items()) {
    if (key == "worker_nodes" || key == "server_nodes") {
      Result<Placement> nodes = parse_nodes(value, key);
      if (!nodes) return wrong(nodes.error().message);
      (key == "worker_nodes" ? file.workers : file.servers) = std::move(*nodes);
      continue;
    }
    std::string* const field = key == "master_node" ? &file.master : key == "username" ? &file.username : key == "pem_file" ? &file.pem_file
                               : key == "virtualenv" ? &file.virtualenv : nullptr;
    if (field == nullptr) return wrong(base::concat("it has no \"", key, "\"", base::did_you_mean(key, known)));
    if (!value.is_string()) return wrong(base::concat("\"", key, "\" must be a string"));
    *field = value.get<std::string>();
  }
  if (file.workers.empty()) return wrong("\"worker_nodes\" names no node");
  if (!file.master.empty() && !is_host(file.master)) return wrong("\"master_node\" is no host");
  if (!file.username.empty() && !is_host(file.username + "@host")) return wrong("\"username\" is no user's name");
  return file;
}

}  // namespace poseidon::launch
