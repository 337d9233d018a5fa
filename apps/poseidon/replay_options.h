// The flags of `poseidon replay`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/job_options.h"
#include "apps/poseidon/schedule_options.h"
#include "apps/poseidon/workload_options.h"
#include "plan/hosts.h"

namespace poseidon::app {

struct ReplayOptions {
  WorkloadOptions workload;
  JobOptions job = {.workers = 2};
  double dilation = 1;
  int iterations = 7;
  int warm_up = 2;
  ScheduleOptions schedule;
  std::string bandwidth = "10Gbit";
  std::string listen = "127.0.0.1";
  std::string start;
  std::optional<std::string> report;
  std::optional<std::string> run_folder;

  // Checked by parse_replay_options.
  double line_bytes_per_second = 0;
  plan::HostGroups hosts;

  // Iterations that are run: the last one only ends the last that counts.
  int all_iterations() const { return warm_up + iterations + 1; }
};

struct ParsedReplayOptions {
  ReplayOptions options;
  std::optional<int> exit_code;
};
ParsedReplayOptions parse_replay_options(const std::vector<std::string>& arguments);

}  // namespace poseidon::app
