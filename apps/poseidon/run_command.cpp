// `poseidon run`: trains an ordinary script for one process on many.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "base/quantity.h"
#include "base/text.h"
#include "launch/local_job.h"
#include "plan/choose.h"

namespace poseidon::app {
namespace {

struct RunOptions {
  int workers = 1;
  std::optional<std::string> log_folder;
  std::vector<std::string> environment;
  std::string scheme = "auto";
  std::optional<std::string> bandwidth;
  std::vector<std::string> command;
};

constexpr const char* kDescription =
    "Trains a script that was written for one process on several, data-parallel, without a change. Everything after the\n"
    "first word that is no flag is the command.";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon run -n 4 python train.py --lr 0.1\n"
    "  poseidon run -n 2 -o logs --env DATA=/data python train.py";

void describe(CLI::App& app, RunOptions& into) {
  app.name("poseidon run");
  app.description(kDescription);
  app.footer(kExamples);
  app.prefix_command();
  app.add_option("-n,--workers", into.workers, "how many workers")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("-o,--out", into.log_folder, "where logs and the plan go; a new one under poseidon-runs/ if not given");
  app.add_option("--env", into.environment, "NAME=VALUE for the workers; may be given several times");
  app.add_option("--scheme", into.scheme, "how gradients travel: auto, ps, sfb, adam or block, and LAYER=SCHEME for exceptions")->capture_default_str();
  app.add_option("--bandwidth", into.bandwidth, "of the links, for the choice, instead of measuring");
}

// Where the Python package is: beside the program in a build, or where it was installed.
std::filesystem::path python_folder() {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  return program.parent_path().parent_path() / "python";
}

int run(const RunOptions& options) {
  const auto complain = [](const Error& error) {
    std::fprintf(stderr, "poseidon run: %s\n", error.message.c_str());
    return exit_code_of(error.code);
  };
  Result<plan::SchemeRequest> schemes = plan::parse_scheme_request(options.scheme);
  if (!schemes) return complain(schemes.error());
  const std::string stem = std::filesystem::path(options.command.back()).stem().string();
  Result<std::filesystem::path> folder = make_run_folder(options.log_folder, stem);
  if (!folder) return complain(folder.error());
  launch::LocalJobOptions job;
  job.workers = options.workers;
  job.command = options.command;
  job.run_folder = *folder;
  job.coordinator.workers = options.workers;
  job.coordinator.schemes = std::move(*schemes);
  if (options.bandwidth) {
    const Result<double> rate = base::parse_bandwidth(*options.bandwidth);
    if (!rate) return complain(rate.error());
    job.coordinator.link_bytes_per_second = *rate;
  }
  const std::filesystem::path python = python_folder();
  const char* const path = std::getenv("PYTHONPATH");
  job.environment["PYTHONPATH"] = base::concat((python / "poseidon/_hook").string(), ":", python.string(), path == nullptr ? "" : ":", path == nullptr ? "" : path);
  job.environment["PYTHONUNBUFFERED"] = "1";
  job.environment["WORLD_SIZE"] = job.environment["LOCAL_WORLD_SIZE"] = std::to_string(options.workers);
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    job.environment["OMP_NUM_THREADS"] = std::to_string(std::max(1u, std::thread::hardware_concurrency() / static_cast<unsigned>(options.workers)));
  }
  for (const std::string& entry : options.environment) {
    const std::size_t equals = entry.find('=');
    if (equals == entry.npos || equals == 0) return complain({ErrorCode::kInvalid, base::concat("--env ", entry, ": it must be NAME=VALUE")});
    job.environment[entry.substr(0, equals)] = entry.substr(equals + 1);
  }
  const launch::JobOutcome outcome = launch::run_local_job(
      job, {.on_wait = [](const std::string& text) { std::fprintf(stderr, "poseidon run: %s\n", text.c_str()); }}, [](const auto&) {});
  if (outcome.error) return complain(*outcome.error);
  return kSuccess;
}

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  RunOptions options;
  CLI::App app;
  describe(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  options.command = app.remaining();
  if (options.command.empty()) {
    std::fputs("poseidon run: there is no command: poseidon run -n 4 python train.py\n", stderr);
    return kWrongUsage;
  }
  return run(options);
}

}  // namespace poseidon::app
