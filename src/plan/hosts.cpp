#include "plan/hosts.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::plan {

Result<PerHost> parse_per_host(std::string_view text) {
  if (text == "off") return PerHost::kOff;
  if (text == "on") return PerHost::kAll;
  int most = 0;
  const auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), most);
  if (failure == std::errc{} && stop == text.data() + text.size() && most >= 2 && most <= static_cast<int>(PerHost::kAll)) {
    return PerHost{most};
  }
  return Error{ErrorCode::kInvalid, base::concat("\"", text, "\" says nothing about the workers of one host: it must be off, on, or how many ",
                                                 "of them at most combine their gradients, at least 2")};
}

HostGroups group_by_machine(const std::vector<std::string>& machines, PerHost most) {
  std::map<std::string, std::size_t> open;  // by machine: the group that is not full
  HostGroups groups;
  for (std::size_t rank = 0; rank < machines.size(); ++rank) {
    const Rank self{static_cast<std::int32_t>(rank)};
    const auto found = machines[rank].empty() ? open.end() : open.find(machines[rank]);
    if (found != open.end() && groups[found->second].size() < static_cast<std::size_t>(most)) {
      groups[found->second].push_back(self);
      continue;
    }
    if (!machines[rank].empty()) open[machines[rank]] = groups.size();
    groups.push_back({self});
  }
  if (groups.size() == machines.size()) groups.clear();
  return groups;
}

std::size_t largest_group(const HostGroups& hosts) {
  std::size_t most = 1;
  for (const std::vector<Rank>& group : hosts) most = std::max(most, group.size());
  return most;
}

HostPlace host_place(const Plan& plan, Rank rank) {
  for (std::size_t g = 0; g < plan.hosts.size(); ++g) {
    const auto found = std::find(plan.hosts[g].begin(), plan.hosts[g].end(), rank);
    if (found != plan.hosts[g].end()) return {g, static_cast<std::size_t>(found - plan.hosts[g].begin())};
  }
  POSEIDON_CHECK(plan.hosts.empty(), "rank ", index(rank), " is on no host of the plan");
  return {static_cast<std::size_t>(index(rank)), 0};
}

std::vector<Rank> leaders_of(const HostGroups& hosts) {
  std::vector<Rank> leaders;
  for (const std::vector<Rank>& group : hosts) leaders.push_back(group.front());
  return leaders;
}

Model network_model(const Model& model, const HostGroups& hosts) {
  Model network = model;
  for (LayerSpec& layer : network.layers) layer.factor_rows *= largest_group(hosts);
  return network;
}

Plan network_plan(const Plan& plan) {
  Plan network = plan;
  network.workers = nodes_of(plan);
  network.hosts.clear();
  return network;
}

}  // namespace poseidon::plan
