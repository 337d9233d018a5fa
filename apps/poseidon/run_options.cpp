#include "apps/poseidon/run_options.h"

#include <cstdlib>

#include "base/quantity.h"
#include "base/text.h"
#include "launch/command_line.h"
#include "launch/hosts.h"
#include "plan/choose.h"

namespace poseidon::app {
namespace {

// A script may prepare its data on rank 0 alone, and the others wait for it; processes that have died are noticed at once.
constexpr auto kJoinMax = std::chrono::minutes(60);

constexpr const char* kDescription =
    "Trains a script that was written for one process on several, data-parallel, without a change. Everything after the\n"
    "first word that is no flag is the command; one word with blanks in it is a command line.";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon run -n 4 python examples/pytorch/train.py --lr 0.1\n"
    "  poseidon run -n 2 --screen all --env OMP_NUM_THREADS=1 -o first python examples/pytorch/train.py --epochs 1\n"
    "  poseidon run --dry-run -H gpu1:2,gpu2:2 --bandwidth 10Gbit -- python train.py\n"
    "  poseidon run --dry-run --hostfile examples/pytorch/hosts python train.py\n"
    "  poseidon run --dry-run -c examples/pytorch/cluster.json \"python train.py\"\n"
    "\n"
    "Exit codes: that of the rank that failed first, or 128 and the number of the signal that ended it; otherwise those of\n"
    "`poseidon --help`. A rank that ends because another one has failed ends with 75.";

Error wrong(const std::string& what) { return {ErrorCode::kInvalid, what}; }

bool is_command_line(const std::vector<std::string>& command) { return command.size() == 1 && command.front().find(' ') != std::string::npos; }

}  // namespace

void RunOptions::describe(CLI::App& app) {
  app.name("poseidon run");
  app.description(kDescription);
  app.footer(kExamples);
  app.prefix_command();
  const auto at_most = static_cast<int>(launch::kWorkersMax);
  app.add_option("-n,--workers", workers, "how many workers: on this host, or on the first slots of the hosts given")->check(CLI::Range(1, at_most));
  where.describe(app);
  app.add_option("-o,--out", folder, "where logs, run.json and the plan go; a new one under poseidon-runs/ if not given");
  app.add_option("--env", environment, "NAME=VALUE for the workers, or NAME: as it is here; may be given several times")->take_all()->allow_extra_args(false);
  app.add_flag("--dry-run", dry_run, "say what would start where, and start nothing");
  app.add_option("--screen", screen, "what of the workers' output is shown: first (rank 0's), all (lines with host:rank in front), none")
      ->check(CLI::IsMember({"first", "all", "none"}))
      ->capture_default_str();
  app.add_option("--scheme", scheme, "how gradients travel: auto, ps, sfb, adam or block, and LAYER=SCHEME for exceptions")->capture_default_str();
  app.add_option("--bandwidth", bandwidth, "of the links, for the choice, instead of measuring");
  add_lanes(app, lanes, pin_lanes);
  app.add_flag("--tls", tls, "encrypt all links of the job with TLS 1.3, keyed by its secret");
  app.add_option("--dilation", dilation, "for measurements: the links are so many times slower than those that they stand for")->check(CLI::Range(1.0, 1e6));
  app.add_flag("--timeline", timeline, "write timeline.json into the run's folder, for Perfetto or chrome://tracing");
  app.add_flag("--all-ranks-write", all_ranks_write, "every rank writes its files itself; otherwise rank 0 alone does");
  app.add_option("--batch", batch, "what the script's batch is: that of all workers together (global), or of each of them (per-worker)")
      ->check(CLI::IsMember({"global", "per-worker"}))
      ->capture_default_str();
  app.add_option("--loss", loss, "what the script's own losses are over a batch: a mean, or a sum; PyTorch's own losses need no word")
      ->check(CLI::IsMember({"mean", "sum"}));
  app.add_flag("--sync-batch-norm", sync_batch_norm, "BatchNorm normalises over the batch of all workers together");
  app.add_flag("--shard-datasets", shard_datasets,
               "TensorFlow: loops over a tf.data.Dataset in the script get this worker's part of each batch, where they train");
  app.add_flag("--split-feeds", split_feeds, "TensorFlow 1: this worker's part of what a training step is fed, instead of all of it");
  app.add_flag("--count-targets", count_targets, "workers tell each other how many targets their losses do not ignore, also where each sample has one");
}

RunOutput::Screen RunOptions::where_to_print() const {
  return screen == "all" ? RunOutput::Screen::kAll : screen == "none" ? RunOutput::Screen::kNothing : RunOutput::Screen::kFirst;
}

Status RunOptions::set_environment(launch::ClusterJobOptions& job) const {
  for (const std::string& entry : environment) {
    const std::size_t equals = entry.find('=');
    if (equals == 0 || entry.empty()) return wrong(base::concat("--env ", entry, ": it must be NAME=VALUE, or NAME"));
    const std::string name = entry.substr(0, equals);
    if (equals != entry.npos) {
      job.environment[name] = entry.substr(equals + 1);
    } else if (const char* const own = std::getenv(name.c_str())) {
      job.environment[name] = own;
    } else {
      return wrong(base::concat("--env ", name, ": there is no such variable here; --env ", name, "=VALUE gives it a value"));
    }
  }
  job.environment.try_emplace("PYTHONUNBUFFERED", "1");
  job.environment["POSEIDON_LANES"] = std::to_string(lanes);
  if (batch != "global") job.environment["POSEIDON_BATCH"] = batch;
  if (loss) job.environment["POSEIDON_LOSS"] = *loss;
  if (timeline) job.environment["POSEIDON_TIMELINE"] = "1";
  if (sync_batch_norm) job.environment["POSEIDON_SYNC_BATCH_NORM"] = "1";
  if (shard_datasets) job.environment["POSEIDON_SHARD_DATASETS"] = "1";
  if (split_feeds) job.environment["POSEIDON_SPLIT_FEEDS"] = "1";
  if (count_targets) job.environment["POSEIDON_COUNT_TARGETS"] = "1";
  if (all_ranks_write) job.environment["POSEIDON_ALL_RANKS_WRITE"] = "1";
  return {};
}

Result<launch::ClusterJobOptions> RunOptions::job() const {
  launch::ClusterJobOptions job;
  if (const Status status = where.prepare(job, workers); !status) return status.error();
  if (const Status status = set_environment(job); !status) return status.error();
  if (is_command_line(command)) {
    Result<std::vector<std::vector<std::string>>> commands = launch::split_commands(command.front(), job.hosts.size());
    if (!commands) return commands.error();
    job.commands = std::move(*commands);
  } else {
    job.commands = {command};
  }
  job.tls = tls;
  job.coordinator.workers = static_cast<int>(job.hosts.size());
  job.coordinator.servers = static_cast<int>(job.server_hosts.size());
  job.coordinator.join_max = kJoinMax;
  job.coordinator.waits_for_first = true;
  job.coordinator.dilation = dilation;
  Result<plan::SchemeRequest> schemes = plan::parse_scheme_request(scheme);
  if (!schemes) return wrong("--scheme: " + schemes.error().message);
  job.coordinator.schemes = std::move(*schemes);
  if (bandwidth) {
    const Result<double> rate = base::parse_bandwidth(*bandwidth);
    if (!rate) return wrong("--bandwidth: " + rate.error().message);
    job.coordinator.link_bytes_per_second = *rate;
  }
  return job;
}

}  // namespace poseidon::app
