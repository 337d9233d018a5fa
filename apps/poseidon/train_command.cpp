// `poseidon train`: as a launcher it starts the workers, here or on several hosts, and watches over them; started by a launcher it is one of them.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "apps/poseidon/command.h"
#include "apps/poseidon/caffe_log.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/run_output.h"
#include "apps/poseidon/train_notes.h"
#include "apps/poseidon/train_options.h"
#include "apps/poseidon/train_report.h"
#include "apps/poseidon/train_worker.h"
#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/message.h"
#include "launch/cluster_job.h"
#include "launch/local_job.h"
#include "launch/sentence.h"
#include "plan/plan.h"
#include "trace/timeline.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kPlanBytesMax = 64 << 20;

int complain(const Error& error) {
  std::fprintf(stderr, "poseidon train: %s\n", error.message.c_str());
  return exit_code_of(error.code);
}

// How one process ended, in order of numbers: ranks, then the dedicated servers.
using Exits = std::vector<std::optional<launch::Exit>>;

class Launcher {
 public:
  Launcher(const TrainOptions& options, const std::vector<std::string>& arguments)
      : options_(options),
        arguments_(arguments),
        // What can be seen at once is not worth starting processes for.
        solver_(caffe::proto::read_text(options.solver, "SolverParameter")),
        log_([this](const std::string& line) { write_log(line); }),
        report_(options, log_, solver_.flag("test_compute_loss")) {}

  int run(launch::ClusterJobOptions* on_hosts) {
    for (const Status& status : {check_writable(options_.report, "--report"), check_writable(options_.timeline, "--timeline")}) {
      if (!status) return complain(status.error());
    }
    if (options_.plan) {
      Result<std::string> text = base::read_file(*options_.plan, kPlanBytesMax);
      if (!text) return complain(text.error());
      plan_json_ = std::move(*text);
    }
    Result<std::filesystem::path> folder = make_run_folder(options_.run_folder, std::filesystem::path(options_.solver).stem().string());
    if (!folder) return complain(folder.error());
    folder_ = std::move(*folder);
    return on_hosts == nullptr ? run_here() : run_on(*on_hosts);
  }

 private:
  int run_here() {
    Result<launch::LocalJobOptions> prepared = options_.job.local_job("train", arguments_, folder_);
    if (!prepared) return complain(prepared.error());
    launch::LocalJobOptions job = std::move(*prepared);
    job.environment["OMP_NUM_THREADS"] = std::to_string(options_.threads);
    job.port = options_.port;
    job.effects = signal_effects(options_);
    set(job.coordinator);
    std::printf("%s: %d worker%s with %d thread%s each; logs and plan in %s\n", options_.solver.c_str(), options_.job.workers,
                options_.job.workers == 1 ? "" : "s", options_.threads, options_.threads == 1 ? "" : "s", folder_.c_str());
    std::fflush(stdout);
    const launch::JobOutcome outcome =
        launch::run_local_job(job, listener(), [this](std::function<void(const Error&)> abort) { abort_ = std::move(abort); });
    return finish(outcome.error, outcome.interrupted, Exits(outcome.exits.begin(), outcome.exits.end()));
  }

  int run_on(launch::ClusterJobOptions& job) {
    set(job.coordinator);
    std::set<std::string> hosts(job.hosts.begin(), job.hosts.end());
    std::printf("%s: %zu worker%s on %zu host%s; logs and plan in %s\n", options_.solver.c_str(), job.hosts.size(), job.hosts.size() == 1 ? "" : "s",
                hosts.size(), hosts.size() == 1 ? "" : "s", folder_.c_str());
    std::fflush(stdout);
    std::vector<std::string> labels;
    std::vector<std::filesystem::path> logs;
    const auto workers = static_cast<int>(job.hosts.size());
    for (int number = 0; number < workers + static_cast<int>(job.server_hosts.size()); ++number) {
      labels.push_back(plan::node_name(Rank{number}, workers));
      logs.push_back(folder_ / (launch::process_name(number < workers ? number : number - workers, number >= workers) + ".log"));
    }
    RunOutput output(RunOutput::Screen::kNothing, std::move(labels), std::move(logs));
    const auto say = [](const std::string& text) { std::fprintf(stderr, "poseidon train: %s\n", text.c_str()); };
    const launch::ClusterOutcome outcome = launch::run_cluster_job(
        job, {.coordinator = listener(),
              .on_host = {},
              .on_output =
                  [&](const launch::NodeOutput& bytes) {
                    if (const Status status = output.take(bytes); !status) say(status.error().message);
                  },
              .on_remark = say,
              .give_abort = [this](std::function<void(const Error&)> abort) { abort_ = std::move(abort); }});
    output.finish();
    Exits exits;
    for (const launch::JobProcess& process : outcome.processes) exits.push_back(process.exit);
    return finish(outcome.error, outcome.interrupted, exits);
  }

  void set(cluster::CoordinatorOptions& coordinator) const {
    if (options_.plan) {
      coordinator.plan_json = plan_json_;
      coordinator.plan_name = *options_.plan;
    }
    coordinator.schemes = options_.schemes;
    coordinator.wire = options_.wire;
    coordinator.per_host = options_.job.group;
    coordinator.link_bytes_per_second = options_.link_bytes_per_second;
    coordinator.replan.enabled = !options_.no_replan;
  }

  cluster::CoordinatorListener listener() {
    return {.on_wait = [](const std::string& text) { std::fprintf(stderr, "poseidon train: %s\n", text.c_str()); },
            .on_plan =
                [this](const plan::Plan& plan, const std::vector<plan::LayerChoice>& choices, const plan::Speeds& speeds, const Model&) {
                  report_.on_plan(plan, choices, speeds);
                  std::fflush(stdout);
                  write_plans();
                },
            .on_links = [this](const std::vector<cluster::MeasuredLink>& links) { report_.on_links(links); },
            .on_change =
                [this](const cluster::PlanChange& change) {
                  report_.on_change(change);
                  std::fflush(stdout);
                  write_plans();
                },
            .on_note =
                [this](Rank from, const std::string& body) {
                  const Result<TrainNote> note = decode_note(body);
                  if (!note) {
                    return abort_({ErrorCode::kCorruptFrame, base::concat("a note of rank ", index(from), " cannot be read: ", note.error().message)});
                  }
                  if (const auto* slice = std::get_if<TimelineNote>(&*note)) {
                    std::ofstream(timeline_part(folder_, index(from)), std::ios::app | std::ios::binary) << slice->part;
                  }
                  report_.on_note(from, *note);
                }};
  }

  // Into a file that is made with the first line, when the training begins. A disk that is full is no reason to end it: that is said once.
  void write_log(const std::string& line) {
    if (!log_is_broken_) {
      if (!log_file_) log_file_.reset(std::fopen((folder_ / "train.log").c_str(), "w"));
      log_is_broken_ = !log_file_ || std::fputs(line.c_str(), log_file_.get()) < 0 || std::fflush(log_file_.get()) != 0;
      if (log_is_broken_) std::fprintf(stderr, "poseidon train: train.log cannot be written: %s\n", std::strerror(errno));
    }
    if (options_.log_format == "caffe") std::fputs(line.c_str(), stderr);
  }

  void write_plans() {
    const Status written = base::write_file_atomically(folder_ / "plan.json", plan::to_json(report_.plans()), base::Flush::kToSystem);
    if (!written) abort_(written.error());
  }

  // What is left to say and to write when all processes have gone.
  int finish(std::optional<Error> error, std::optional<int> interrupted, const Exits& exits) {
    for (std::size_t node = 0; node < exits.size() && !error; ++node) {
      if (exits[node] && (exits[node]->signal != 0 || exits[node]->code != 0)) {
        error = Error{ErrorCode::kPeerLost, base::concat(plan::node_name(Rank{static_cast<std::int32_t>(node)}, options_.job.workers), " ended with ",
                                                         exits[node]->text(), " after the training was over")};
      }
    }
    if (report_.complete()) report_.print_summary();
    const auto keep_first = [&](const Status& status) {
      if (!status && !error) error = status.error();
    };
    if (options_.timeline) {
      std::vector<std::filesystem::path> parts;
      for (int rank = 0; rank < options_.job.workers; ++rank) parts.push_back(timeline_part(folder_, rank));
      keep_first(trace::merge_timelines(parts, *options_.timeline));
    }
    if (options_.report) {
      const auto text = error ? std::optional<std::string>(error->message) : std::nullopt;
      keep_first(base::write_file_atomically(*options_.report, report_.report(text, interrupted.has_value())));
    }
    if (error) {
      const int code = complain(*error);
      std::fprintf(stderr, "poseidon train: the workers' logs are %s/worker-*.log\n", folder_.c_str());
      if (exits.size() > static_cast<std::size_t>(options_.job.workers)) {
        std::fprintf(stderr, "poseidon train: the servers' are %s/server-*.log\n", folder_.c_str());
      }
      return interrupted ? kSignalled + *interrupted : code;
    }
    if (interrupted) {
      std::fprintf(stderr, "poseidon train: interrupted; all workers stopped after the same iteration\n");
      return kSignalled + *interrupted;
    }
    return kSuccess;
  }

  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  const TrainOptions& options_;
  const std::vector<std::string>& arguments_;
  caffe::proto::Message solver_;
  CaffeLog log_;
  TrainReport report_;
  std::string plan_json_;
  std::filesystem::path folder_;
  std::unique_ptr<std::FILE, Closer> log_file_;
  bool log_is_broken_ = false;
  std::function<void(const Error&)> abort_;
};

std::string update_text(const TrainOptions& options) {
  return options.update == "sum" ? "added over the workers, so that the rate counts for each of them (--update sum)"
                                 : "averaged over the workers, so that they train as one with all records (--update average)";
}

// The job on the hosts that the flags name (or this one, for --dry-run).
Result<launch::ClusterJobOptions> job_on_hosts(const TrainOptions& options, const std::vector<std::string>& arguments) {
  launch::ClusterJobOptions job;
  const std::optional<int> workers = options.where.given() && !options.workers_given ? std::nullopt : std::optional(options.job.workers);
  if (const Status status = options.where.prepare(job, workers); !status) return status.error();
  const JobOptions& flags = options.job;
  if (flags.serving.serving.servers > 0) job.server_hosts = flags.serving.hosts;
  // A program may lie elsewhere on other hosts.
  const Result<std::vector<std::string>> here = own_command("train", arguments);
  if (!here) return here.error();
  for (const std::string& host : job.hosts) {
    job.commands.push_back(*here);
    if (!launch::is_this_host(host)) job.commands.back().front() = job.reach.program;
  }
  if (options.threads > 0) job.environment["OMP_NUM_THREADS"] = std::to_string(options.threads);
  job.environment["POSEIDON_STAGING"] = base::concat(flags.staging_bytes_max, "B");
  job.environment["POSEIDON_LANES"] = std::to_string(flags.lanes);
  job.python = false;
  job.tls = flags.tls;
  job.port = options.port;
  job.stops_together = true;
  job.effects = signal_effects(options);
  job.threads_flag = "--threads N";
  job.coordinator.workers = static_cast<int>(job.hosts.size());
  job.coordinator.servers = static_cast<int>(job.server_hosts.size());
  job.coordinator.colocated = options.where.cluster_file ? job.coordinator.colocated : flags.serving.serving.colocated;
  return job;
}

// Of the job's workers, those that its launcher has started on this host.
int workers_here(const cluster::JobAddress& job) {
  const char* const told = std::getenv("POSEIDON_LOCAL_SIZE");
  const int here = told == nullptr ? job.workers : std::atoi(told);
  return here > 0 ? here : job.workers;
}

}  // namespace

int train_command(const std::vector<std::string>& arguments) {
  ParsedTrainOptions parsed = parse_train_options(arguments);
  if (parsed.exit_code) return *parsed.exit_code;
  TrainOptions& options = parsed.options;
  const Result<std::optional<cluster::JobAddress>> job = options.job.own_job();
  if (!job) return complain(job.error());
  if (*job) {
    if (options.threads == 0) options.threads = shared_threads(workers_here(**job));
    return run_train_worker(options, **job);
  }
  std::optional<launch::ClusterJobOptions> on_hosts;
  if (options.where.given() || options.dry_run) {
    Result<launch::ClusterJobOptions> prepared = job_on_hosts(options, arguments);
    if (!prepared) return complain(prepared.error());
    on_hosts = std::move(*prepared);
    options.job.workers = static_cast<int>(on_hosts->hosts.size());
  } else if (options.threads == 0) {
    options.threads = shared_threads(options.job.workers);
  }
  if (!options.dry_run) return Launcher(options, arguments).run(on_hosts ? &*on_hosts : nullptr);
  print_placement(*on_hosts);
  std::printf("gradients: %s\n", update_text(options).c_str());
  return kSuccess;
}

}  // namespace poseidon::app
