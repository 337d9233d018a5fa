#include "apps/poseidon/train_options.h"

#include <cstdio>
#include <tuple>

#include "apps/poseidon/command.h"
#include "base/quantity.h"

namespace poseidon::app {
namespace {

constexpr const char* kDescription =
    "Trains the net of a Caffe solver, data-parallel on worker processes of this host, or of those that --hosts names.\n"
    "\n"
    "Every worker takes its part of each global batch (batch_size of the prototxt is one worker's), gradients are averaged, and\n"
    "all workers make the same update: P workers with batch b train as one does with batch P b. Ctrl-C lets all workers stop\n"
    "after the same iteration; a second one ends them at once.";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2 \\\n"
    "      --snapshot examples/digits/snapshots/lenet_iter_300.solverstate   # goes on from there\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 4 --iterations 100 \\\n"
    "      --scheme auto,ip1=sfb --bandwidth 10Gbit --report report.json --run-folder first\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 4 --iterations 100 \\\n"
    "      --plan first/plan.json   # the same bits again\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2 --servers 1 --iterations 100\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2 --tls   # the same bits, encrypted on the way\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 4 --iterations 100 --staging 1MB\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 4 --iterations 100 \\\n"
    "      --per-host on   # the workers add up in shared memory\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2 --iterations 100 \\\n"
    "      --lanes 2 --pin-lanes   # two event loops in each worker\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2 --iterations 100 \\\n"
    "      --timeline timeline.json   # open it at https://ui.perfetto.dev\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2 --iterations 100 --wire bf16\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --hosts localhost:2 --iterations 100\n"
    "  poseidon train --dry-run --solver examples/digits/lenet_solver.prototxt --hosts gpu1:2,gpu2:2   # what would start where";

void describe(CLI::App& app, TrainOptions& into) {
  app.name("poseidon train");
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("--solver", into.solver, "the solver's prototxt")->required();
  into.job.describe(app);
  into.where.describe(app);
  app.add_flag("--dry-run", into.dry_run, "say what would start where, and start nothing");
  app.add_option("--threads", into.threads, "threads of each worker; 0 shares the cores out")->check(CLI::Range(0, 4096))->capture_default_str();
  add_data_threads(app);
  app.add_option("--scheme", into.scheme,
                 "how gradients travel: auto, ps, sfb, adam or block, and LAYER=SCHEME for exceptions, separated by commas")
      ->capture_default_str();
  app.add_option("--plan", into.plan, "repeat the plan, or the plans one after the other, in this file instead of choosing");
  app.add_flag("--no-replan", into.no_replan, "keep to the first plan, whatever is measured later");
  app.add_option("--bandwidth", into.bandwidth, "of each link, for the choice of schemes, e.g. 10Gbit; measured if not given");
  app.add_option("--iterations", into.iterations, "stop after so many in all, instead of the solver's max_iter")
      ->check(CLI::Range(std::int64_t{0}, kIterationsMax));
  app.add_option("--snapshot", into.snapshot, "go on from this .solverstate or .solverstate.h5");
  app.add_option("--weights", into.weights, "start from the layers of these .caffemodel or .caffemodel.h5 files, separated by commas")->delimiter(',');
  add_dtype(app, into.dtype);
  add_wire(app, into.wire);
  app.add_option("--on-interrupt", into.on_interrupt,
                 "when Ctrl-C or SIGTERM ends the training: write a snapshot, discard the work since the last one, or do as the "
                 "solver's snapshot_after_train says")
      ->check(CLI::IsMember({"solver", "snapshot", "discard"}))
      ->capture_default_str();
  for (const auto& [flag, effect, what] : {std::tuple("--sigint-effect", &into.sigint_effect, "what Ctrl-C does: stop, snapshot and go on, or none"),
                                           std::tuple("--sighup-effect", &into.sighup_effect, "what a closed terminal (SIGHUP) does, likewise")}) {
    app.add_option(flag, *effect, what)->check(CLI::IsMember({"stop", "snapshot", "none"}))->capture_default_str();
  }
  app.add_flag("--sync-batch-norm", into.sync_batch_norm, "BatchNorm normalises over the batches of all workers together; otherwise over each one's");
  app.add_option("--update", into.update,
                 "what the workers' gradients become: average (P workers with batch b train as one with P b), or sum, by which each adds what it would "
                 "alone: the rate then counts for each worker, as in Poseidon's first edition")
      ->check(CLI::IsMember({"average", "sum"}))
      ->capture_default_str();
  add_gpu(app, into.gpu);
  add_net_state(app, into.level, into.stages);
  app.add_option("--log-format", into.log_format, "what the screen shows: a table, or the lines of Caffe's log, which train.log in the run folder always has")
      ->check(CLI::IsMember({"table", "caffe"}))
      ->capture_default_str();
  app.add_option("--report", into.report, "write what happened as JSON to this file");
  app.add_option("--timeline", into.timeline, "write a timeline for Perfetto or chrome://tracing to this file");
  app.add_option("--run-folder", into.run_folder, "where logs and the plan go; a new one under poseidon-runs/ if not given");
  app.add_option("--port", into.port, "of the coordinator on 127.0.0.1; 0 chooses a free one")->capture_default_str();
}

// What the flags mean together. A sentence where they do not.
std::optional<std::string> check(TrainOptions& options) {
  if (const Status status = options.job.check(options.where.given()); !status) return status.error().message;
  Result<plan::SchemeRequest> schemes = plan::parse_scheme_request(options.scheme);
  if (!schemes) return schemes.error().message;
  options.schemes = std::move(*schemes);
  if (options.bandwidth) {
    const Result<double> rate = base::parse_bandwidth(*options.bandwidth);
    if (!rate) return "--bandwidth: " + rate.error().message;
    options.link_bytes_per_second = *rate;
  }
  if (options.plan && options.job.group != plan::PerHost::kOff) {
    return "--plan repeats a plan with the hosts in it, so --per-host has no say; give one of them";
  }
  constexpr std::string_view kWorkers =
      "with --workers how many workers there are to be (scripts under `poseidon run` may use GPUs)";
  if (const Status status = check_gpu(options.gpu, kWorkers); !status) return status.error().message;
  if (options.where.cluster_file && options.job.serving.serving.servers > 0) return "--cluster names the servers' hosts, so --servers has no say; give one of them";
  if (options.plan && options.scheme != "auto") return "--plan repeats a plan, so --scheme has no say; give one of them";
  if (options.wire && options.dtype != "float32") {
    return "--wire narrows float32 only, so with --dtype float64 it has no say; give one of them";
  }
  if (options.snapshot && !options.weights.empty()) {
    return "--snapshot goes on with a snapshot's own weights, so --weights has no say; give one of them";
  }
  return std::nullopt;
}

}  // namespace

std::map<int, launch::SignalEffect> signal_effects(const TrainOptions& options) {
  const auto effect = [](const std::string& word) {
    return word == "stop" ? launch::SignalEffect::kEnd : word == "snapshot" ? launch::SignalEffect::kTell : launch::SignalEffect::kIgnore;
  };
  return {{SIGINT, effect(options.sigint_effect)}, {SIGHUP, effect(options.sighup_effect)}};
}

ParsedTrainOptions parse_train_options(const std::vector<std::string>& arguments) {
  ParsedTrainOptions parsed;
  CLI::App app;
  describe(app, parsed.options);
  parsed.exit_code = parse(app, arguments);
  if (parsed.exit_code) return parsed;
  if (const std::optional<std::string> wrong = check(parsed.options)) {
    std::fprintf(stderr, "poseidon train: %s\n", wrong->c_str());
    parsed.exit_code = kWrongUsage;
  }
  parsed.options.workers_given = app.count("--workers") > 0;
  return parsed;
}

}  // namespace poseidon::app
