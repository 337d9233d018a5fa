#include "apps/poseidon/command.h"

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "base/text.h"
#include "engines/caffe/tools/old_flags.h"
#include "plan/lanes.h"

namespace poseidon::app {

int exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
    case ErrorCode::kNotFound:
    case ErrorCode::kRefused:
      return kWrongInput;
    case ErrorCode::kSystem:
      return kSystem;
    case ErrorCode::kCorruptFrame:
    case ErrorCode::kStaleEpoch:
    case ErrorCode::kPeerLost:
    case ErrorCode::kTimeout:
    case ErrorCode::kAborted:
      return kJobFailed;
  }
  return kBroken;
}

std::optional<int> parse(CLI::App& app, const std::vector<std::string>& arguments, std::span<const std::string_view> switches) {
  std::vector<std::string> modern = caffe::modern_spelling(arguments, switches);
  try {
    app.parse(std::vector<std::string>(modern.rbegin(), modern.rend()));  // CLI11 takes them from the back
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    std::fprintf(stderr, "%s: %s; --help shows the flags\n", app.get_name().c_str(), error.what());
    return kWrongUsage;
  }
}

int shared_threads(int processes_here) { return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / processes_here); }

void outlive_file_limits() { ::signal(SIGXFSZ, SIG_IGN); }

CLI::Option* add_wire(CLI::App& app, std::optional<DType>& wire) {
  return app.add_option_function<std::string>(
                "--wire", [&wire](const std::string& name) { wire = name == "bf16" ? DType::kBFloat16 : DType::kFloat16; },
                "send float32 gradients with 16 bits, bf16 or fp16: half the bytes, fewer digits; part of the plan")
      ->check(CLI::IsMember({"bf16", "fp16"}));
}

void add_gpu(CLI::App& app, std::optional<std::string>& gpu) {
  app.add_option("--gpu", gpu, "Caffe's list of GPUs. Prototxts are computed on the CPU in this version, so only \"none\" is taken");
}

Status check_gpu(const std::optional<std::string>& gpu, std::string_view instead) {
  if (!gpu || *gpu == "none" || gpu->empty()) return {};
  return Error{ErrorCode::kInvalid,
               base::concat("--gpu ", *gpu, ": prototxts are computed on the CPU in this version; leave --gpu away, and say ", instead)};
}

void add_net_state(CLI::App& app, std::optional<std::int64_t>& level, std::vector<std::string>& stages) {
  app.add_option("--level", level, "of the net's state, which layers' include and exclude rules ask for");
  app.add_option("--stage", stages, "stages of the net's state, separated by commas")->delimiter(',');
}

CLI::Option* add_dtype(CLI::App& app, std::string& dtype) {
  return app.add_option("--dtype", dtype, "element type of the whole net; float64 is for comparisons")
      ->check(CLI::IsMember({"float32", "float64"}))
      ->capture_default_str();
}

void add_lanes(CLI::App& app, std::size_t& lanes, bool& pin) {
  app.add_option("--lanes", lanes,
                 "event loops of each worker, each with a thread and with a connection to the same lane of every other worker: for links "
                 "that are faster than what one core can move. They change no bit of the result")
      ->check(CLI::Range(std::size_t{1}, plan::kLanesMax))
      ->capture_default_str();
  app.add_flag("--pin-lanes", pin,
               "keep each lane's thread on a core of its own: the workers of a host share its cores out, and lanes take the last ones of "
               "their worker's share");
}

CLI::Option* add_data_threads(CLI::App& app) {
  return app
      .add_option_function<int>(
          "--data-threads", [](int threads) { ::setenv("POSEIDON_DATA_THREADS", std::to_string(threads).c_str(), 1); },
          "of each data layer that decode and transform images; 0, the default: one on each core. They change no bit of the result")
      ->check(CLI::Range(0, 4096));
}

CLI::Option* add_per_host(CLI::App& app, std::string& per_host) {
  return app
      .add_option("--per-host", per_host,
                  "workers of one host combine their gradients in shared memory, and the host sends once: off, on, or at most so "
                  "many of them together. Schemes are chosen once then, and --servers cannot be given")
      ->capture_default_str();
}

}  // namespace poseidon::app
