// The flags of `poseidon train`.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/host_options.h"
#include "apps/poseidon/job_options.h"
#include "launch/signals.h"
#include "plan/choose.h"

namespace poseidon::app {

struct TrainOptions {
  std::string solver;
  JobOptions job;
  HostOptions where;                      // nothing given: this host alone
  bool workers_given = false;             // otherwise as many as the hosts have room for
  int threads = 0;                        // of each worker; 0: the cores of its host shared out
  std::string scheme = "auto";
  std::optional<std::string> plan;        // file
  std::optional<std::string> bandwidth;
  bool no_replan = false;
  std::optional<std::uint64_t> iterations;
  std::optional<std::string> snapshot;    // a .solverstate to go on from
  std::vector<std::string> weights;
  std::string dtype = "float32";
  std::optional<DType> wire;              // in which gradients travel; nothing: as they are, or as the plan says
  std::string on_interrupt = "solver";
  std::string sigint_effect = "stop";
  std::string sighup_effect = "stop";
  std::optional<std::string> gpu;
  std::optional<std::int64_t> level;
  std::vector<std::string> stages;
  bool sync_batch_norm = false;
  std::string update = "average";         // what workers' gradients become
  std::optional<std::string> report;
  std::optional<std::string> timeline;
  std::optional<std::string> run_folder;
  std::string log_format = "table";       // of what the screen shows
  std::uint16_t port = 0;
  bool dry_run = false;

  // Checked together by parse_train_options.
  plan::SchemeRequest schemes;
  std::optional<double> link_bytes_per_second;
};

// What Ctrl-C and a closed terminal do.
std::map<int, launch::SignalEffect> signal_effects(const TrainOptions& options);

// The options, or the exit code with which the command ends (after --help, or a message).
struct ParsedTrainOptions {
  TrainOptions options;
  std::optional<int> exit_code;
};
ParsedTrainOptions parse_train_options(const std::vector<std::string>& arguments);

}  // namespace poseidon::app
