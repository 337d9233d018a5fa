// The flags that say on which hosts a job's processes start, and how those are reached: of `poseidon run` and `poseidon train`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/command.h"
#include "launch/cluster_job.h"
#include "poseidon/error.h"

namespace poseidon::app {

struct HostOptions {
  std::optional<std::string> hosts;
  std::optional<std::string> hostfile;
  std::optional<std::string> cluster_file;
  std::vector<std::string> ssh_flags;
  std::string ssh = "ssh";
  std::optional<std::string> program;
  std::optional<std::string> interface;
  std::optional<std::string> network;

  void describe(CLI::App& app);
  // The flags again, for another command that takes them.
  std::vector<std::string> as_flags() const;
  // One of the three lists was given; otherwise the job is this host's.
  bool given() const { return hosts || hostfile || cluster_file; }
  // The job's hosts and how they are reached, its agents, and the folder in which its processes start: the one in which we are. `workers`:
  // so many, instead of all that the hosts have room for. Sentences name the flag.
  Status prepare(launch::ClusterJobOptions& job, std::optional<int> workers) const;

 private:
  Status place(launch::ClusterJobOptions& job, std::optional<int> workers) const;
  Status find_addresses(launch::ClusterJobOptions& job) const;
};

// What would start where, for --dry-run.
void print_placement(const launch::ClusterJobOptions& job);

}  // namespace poseidon::app
