// The flags of a job, whatever its processes do: who they are, and how they speak to each other.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/command.h"
#include "apps/poseidon/serving_options.h"
#include "cluster/job_address.h"
#include "launch/local_job.h"
#include "plan/hosts.h"
#include "poseidon/error.h"

namespace poseidon::app {

struct JobOptions {
  int workers = 1;
  ServingOptions serving;
  std::size_t lanes = 1;  // event loops of each worker
  bool pin_lanes = false;
  std::string staging = "1GB";
  std::string per_host = "off";
  bool tls = false;

  // Filled in by check().
  std::size_t staging_bytes_max = 0;
  plan::PerHost group = plan::PerHost::kOff;

  void describe(CLI::App& app);
  // kInvalid, as a sentence with the flag.
  Status check(bool on_other_hosts = false);

  // The job's processes: its workers run `poseidon SUBCOMMAND ARGUMENTS`. What the coordinator plans with is left to the caller, but for
  // who serves.
  Result<launch::LocalJobOptions> local_job(const std::string& subcommand, const std::vector<std::string>& arguments,
                                            const std::filesystem::path& run_folder) const;
  // In a process that a launcher started: its job. Nothing: this process is the launcher.
  Result<std::optional<cluster::JobAddress>> own_job() const;
};

}  // namespace poseidon::app
