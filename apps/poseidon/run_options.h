// The flags of `poseidon run`, and the job that they ask for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/host_options.h"
#include "apps/poseidon/run_output.h"
#include "launch/cluster_job.h"
#include "poseidon/error.h"

namespace poseidon::app {

struct RunOptions {
  std::optional<int> workers;
  HostOptions where;
  std::optional<std::string> folder;
  std::vector<std::string> environment;
  bool dry_run = false;
  std::string screen = "first";
  std::string scheme = "auto";
  std::optional<std::string> bandwidth;
  std::size_t lanes = 1;
  bool pin_lanes = false;
  bool tls = false;
  double dilation = 1;
  bool all_ranks_write = false;
  bool count_targets = false;
  bool sync_batch_norm = false;
  bool shard_datasets = false;
  bool split_feeds = false;
  bool timeline = false;
  std::string batch = "global";
  std::optional<std::string> loss;
  std::vector<std::string> command;

  void describe(CLI::App& app);
  // Everything about the job that the flags, the files that they name and this host decide. Sentences name the flag.
  Result<launch::ClusterJobOptions> job() const;
  RunOutput::Screen where_to_print() const;

 private:
  Status set_environment(launch::ClusterJobOptions& job) const;
};

}  // namespace poseidon::app
