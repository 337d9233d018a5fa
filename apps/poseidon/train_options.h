// The flags of `poseidon train`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/poseidon/serving_options.h"
#include "plan/choose.h"
#include "plan/hosts.h"

namespace poseidon::app {

struct TrainOptions {
  std::string solver;
  int workers = 1;
  ServingOptions serving;
  int threads = 0;                        // of each worker; 0: the cores shared out
  std::size_t lanes = 1;                  // event loops of each worker
  bool pin_lanes = false;
  std::string scheme = "auto";
  std::optional<std::string> plan;        // file
  std::optional<std::string> bandwidth;
  bool no_replan = false;
  std::string staging = "1GB";
  std::string per_host = "off";
  std::optional<std::uint64_t> iterations;
  std::optional<std::string> snapshot;    // a .solverstate to go on from
  std::vector<std::string> weights;
  std::string dtype = "float32";
  std::optional<DType> wire;              // in which gradients travel; nothing: as they are, or as the plan says
  std::string on_interrupt = "solver";
  std::optional<std::string> report;
  std::optional<std::string> timeline;
  std::optional<std::string> run_folder;
  std::uint16_t port = 0;
  bool tls = false;

  // Checked together by parse_train_options.
  plan::SchemeRequest schemes;
  std::optional<double> link_bytes_per_second;
  std::size_t staging_bytes_max = 0;
  plan::PerHost group = plan::PerHost::kOff;
};

// The options, or the exit code with which the command ends (after --help, or a message).
struct ParsedTrainOptions {
  TrainOptions options;
  std::optional<int> exit_code;
};
ParsedTrainOptions parse_train_options(const std::vector<std::string>& arguments);

}  // namespace poseidon::app
