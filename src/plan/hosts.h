// Which workers combine their gradients in the memory of their host, before anything leaves it.
//
// Workers of one group add up, or lay their factors one below the other, in shared memory (host/). The network then sees one
// node for each group, which its first worker, the leader, speaks for. Pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "poseidon/error.h"
#include "poseidon/types.h"

namespace poseidon::plan {

// How many workers of a machine form one group: the rest of the machine's form others.
enum class PerHost : int {
  kOff = 1,         // each worker by itself
  kAll = 1 << 30,
};
// "off", "on", or a number of at least 2.
Result<PerHost> parse_per_host(std::string_view text);

// `machines`: by rank, equal where two workers can share memory; empty where one can with nobody. Each machine's workers in the
// order of ranks, cut into groups of at most `most`; the groups in the order of their leaders. Empty when nobody has company.
HostGroups group_by_machine(const std::vector<std::string>& machines, PerHost most);

// How many nodes of the network train: workers, or hosts.
inline int nodes_of(const Plan& plan) { return plan.hosts.empty() ? plan.workers : static_cast<int>(plan.hosts.size()); }
// The most workers of one group; 1 without groups.
std::size_t largest_group(const HostGroups& hosts);
// A worker's group, and its place there, 0 for the leader.
struct HostPlace {
  std::size_t group = 0;
  std::size_t place = 0;
};
HostPlace host_place(const Plan& plan, Rank rank);

// By node: who speaks for it. Empty without groups.
std::vector<Rank> leaders_of(const HostGroups& hosts);

// What the leaders agree on among themselves: the same tensors, with the factors of a whole group in one piece.
Model network_model(const Model& model, const HostGroups& hosts);
// The same schemes over as many nodes, without groups. Ranks are the groups' numbers.
Plan network_plan(const Plan& plan);

}  // namespace poseidon::plan
