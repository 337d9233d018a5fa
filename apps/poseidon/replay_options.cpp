#include "apps/poseidon/replay_options.h"

#include <cstdio>

#include "base/quantity.h"

namespace poseidon::app {
namespace {

constexpr const char* kDescription =
    "Measures the engine without a framework: worker processes walk a model description forward and backward, wait each layer's\n"
    "compute time, and synchronise gradients of the right sizes and no meaning.\n"
    "\n"
    "With --dilation D computing takes D times as long, so that links D times slower than those that they stand for give the\n"
    "same picture: 500 Mbit/s with D = 20 for 10 Gbit/s.";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon replay --model examples/models/lenet.json --images-per-second 3000 --batch 64 --workers 2\n"
    "  poseidon replay --model examples/models/alexnet.json --images-per-second 1421 --batch 128 --workers 2 \\\n"
    "      --dilation 5 --iterations 2 --warm-up 1 --report replay.json\n"
    "  poseidon replay --model examples/models/vgg19.json --images-per-second 35.5 --batch 32 --workers 4 --staging 100MB\n"
    "  poseidon replay --model examples/models/lenet.json --images-per-second 3000 --batch 64 --workers 4 \\\n"
    "      --per-host 2   # as two hosts of two workers, which add up in shared memory";

void describe(CLI::App& app, ReplayOptions& into) {
  app.name("poseidon replay");
  app.description(kDescription);
  app.footer(kExamples);
  into.workload.describe(app);
  into.job.describe(app);
  app.add_option("--dilation", into.dilation, "how much longer computing takes than it says")->check(CLI::Range(1.0, 1e6))->capture_default_str();
  app.add_option("--iterations", into.iterations, "that are measured")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  app.add_option("--warm-up", into.warm_up, "iterations before them")->check(CLI::Range(0, 1'000'000))->capture_default_str();
  into.schedule.describe(app);
  app.add_option("--bandwidth", into.bandwidth, "of the links as they are (slowed down, in a dilated run), for the choice of schemes")
      ->capture_default_str();
  app.add_option("--start", into.start, "words in front of each worker's command, e.g. 'ip netns exec host-{rank}', for a dedicated server with the workers' "
                 "number plus its own; they must become it (exec)");
  app.add_option("--listen", into.listen, "address of this host that the workers can reach")->capture_default_str();
  app.add_option("--report", into.report, "write what was measured as JSON to this file");
  app.add_option("--run-folder", into.run_folder, "where logs and the plan go; a new one under poseidon-runs/ if not given");
}

// What the flags mean together.
Status check(ReplayOptions& options) {
  if (const Status status = options.job.check(); !status) return status;
  const Result<double> rate = base::parse_bandwidth(options.bandwidth);
  if (!rate) return Error{ErrorCode::kInvalid, "--bandwidth: " + rate.error().message};
  options.line_bytes_per_second = *rate;
  // All workers are started here, wherever their networks are.
  options.hosts = plan::group_by_machine(std::vector<std::string>(static_cast<std::size_t>(options.job.workers), "this"), options.job.group);
  return {};
}

}  // namespace

ParsedReplayOptions parse_replay_options(const std::vector<std::string>& arguments) {
  ParsedReplayOptions parsed;
  ReplayOptions& options = parsed.options;
  CLI::App app;
  describe(app, options);
  parsed.exit_code = parse(app, arguments);
  if (parsed.exit_code) return parsed;
  if (const Status status = check(options); !status) {
    std::fprintf(stderr, "poseidon replay: %s\n", status.error().message.c_str());
    parsed.exit_code = kWrongUsage;
  }
  return parsed;
}

}  // namespace poseidon::app
