// `poseidon train`: as a launcher it starts the workers and watches over them; started by a launcher it is one of them.
#include <cstdio>
#include <filesystem>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/train_notes.h"
#include "apps/poseidon/train_options.h"
#include "apps/poseidon/train_report.h"
#include "apps/poseidon/train_worker.h"
#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/message.h"
#include "launch/local_job.h"
#include "trace/timeline.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kPlanBytesMax = 64 << 20;

int complain(const Error& error) {
  std::fprintf(stderr, "poseidon train: %s\n", error.message.c_str());
  return exit_code_of(error.code);
}

class Launcher {
 public:
  Launcher(const TrainOptions& options, const std::vector<std::string>& arguments)
      : options_(options), arguments_(arguments), report_(options) {}

  int run() {
    // What can be seen at once is not worth starting processes for.
    caffe::proto::read_text(options_.solver, "SolverParameter");
    for (const Status& status : {check_writable(options_.report, "--report"), check_writable(options_.timeline, "--timeline")}) {
      if (!status) return complain(status.error());
    }
    std::string plan_json;
    if (options_.plan) {
      Result<std::string> text = base::read_file(*options_.plan, kPlanBytesMax);
      if (!text) return complain(text.error());
      plan_json = std::move(*text);
    }
    Result<std::filesystem::path> folder = make_run_folder(options_.run_folder, std::filesystem::path(options_.solver).stem().string());
    if (!folder) return complain(folder.error());
    folder_ = std::move(*folder);
    Result<launch::LocalJobOptions> prepared = options_.job.local_job("train", arguments_, folder_);
    if (!prepared) return complain(prepared.error());
    launch::LocalJobOptions job = std::move(*prepared);
    if (options_.plan) {
      job.coordinator.plan_json = std::move(plan_json);
      job.coordinator.plan_name = *options_.plan;
    }
    job.environment["OMP_NUM_THREADS"] = std::to_string(options_.threads);
    job.port = options_.port;
    job.coordinator.schemes = options_.schemes;
    job.coordinator.wire = options_.wire;
    job.coordinator.per_host = options_.job.group;
    job.coordinator.link_bytes_per_second = options_.link_bytes_per_second;
    job.coordinator.replan.enabled = !options_.no_replan;
    std::printf("%s: %d worker%s with %d thread%s each; logs and plan in %s\n", options_.solver.c_str(), options_.job.workers,
                options_.job.workers == 1 ? "" : "s", options_.threads, options_.threads == 1 ? "" : "s", folder_.c_str());
    std::fflush(stdout);
    return finish(launch::run_local_job(job, listener(), [this](std::function<void(const Error&)> abort) { abort_ = std::move(abort); }));
  }

 private:
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
                  if (note) return report_.on_note(from, *note);
                  abort_({ErrorCode::kCorruptFrame, base::concat("a note of rank ", index(from), " cannot be read: ", note.error().message)});
                }};
  }

  void write_plans() {
    const Status written = base::write_file_atomically(folder_ / "plan.json", plan::to_json(report_.plans()));
    if (!written) abort_(written.error());
  }

  // What is left to say and to write when all processes have gone.
  int finish(const launch::JobOutcome& outcome) {
    std::optional<Error> error = outcome.error;
    for (std::size_t node = 0; node < outcome.exits.size() && !error; ++node) {
      const launch::Exit& exit = outcome.exits[node];
      if (exit.signal != 0 || exit.code != 0) {
        error = Error{ErrorCode::kPeerLost, base::concat(plan::node_name(Rank{static_cast<std::int32_t>(node)}, options_.job.workers), " ended with ",
                                                         exit.text(), " after the training was over")};
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
      keep_first(base::write_file_atomically(*options_.report, report_.report(text, outcome.interrupted.has_value())));
    }
    if (error) {
      const int code = complain(*error);
      std::fprintf(stderr, "poseidon train: the workers' logs are %s/worker-*.log\n", folder_.c_str());
      if (options_.job.serving.serving.servers > 0) std::fprintf(stderr, "poseidon train: the servers' are %s/server-*.log\n", folder_.c_str());
      return outcome.interrupted ? kSignalled + *outcome.interrupted : code;
    }
    if (outcome.interrupted) {
      std::fprintf(stderr, "poseidon train: interrupted; all workers stopped after the same iteration\n");
      return kSignalled + *outcome.interrupted;
    }
    return kSuccess;
  }

  const TrainOptions& options_;
  const std::vector<std::string>& arguments_;
  TrainReport report_;
  std::filesystem::path folder_;
  std::function<void(const Error&)> abort_;
};

}  // namespace

int train_command(const std::vector<std::string>& arguments) {
  const ParsedTrainOptions parsed = parse_train_options(arguments);
  if (parsed.exit_code) return *parsed.exit_code;
  const Result<std::optional<cluster::JobAddress>> job = parsed.options.job.own_job();
  if (!job) return complain(job.error());
  if (*job) return run_train_worker(parsed.options, **job);
  return Launcher(parsed.options, arguments).run();
}

}  // namespace poseidon::app
