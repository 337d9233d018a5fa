// `poseidon run`: trains an ordinary script for one process on many.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/run_files.h"
#include "apps/poseidon/run_options.h"
#include "apps/poseidon/run_output.h"
#include "apps/poseidon/run_record.h"
#include "base/text.h"
#include "launch/cluster_job.h"
#include "launch/command_line.h"
#include "plan/plan.h"

namespace poseidon::app {
namespace {

void say(const std::string& text) { std::fprintf(stderr, "poseidon run: %s\n", text.c_str()); }

int complain(const Error& error) {
  say(error.message);
  return exit_code_of(error.code);
}

// What the run's folder is called after: the script, or else the program.
std::string stem_of(const std::vector<std::string>& command) {
  const auto script = std::find_if(command.begin(), command.end(), [](const std::string& word) { return word.ends_with(".py"); });
  return std::filesystem::path(script == command.end() ? command.front() : *script).stem().string();
}

class Run {
 public:
  Run(const RunOptions& options, launch::ClusterJobOptions job) : options_(options), job_(std::move(job)) {}

  int run() {
    Result<std::filesystem::path> folder = make_run_folder(options_.folder, stem_of(job_.commands.front()));
    if (!folder) return complain(folder.error());
    std::vector<std::string> labels;
    std::vector<std::filesystem::path> logs;
    for (int number = 0; number < processes(); ++number) {
      labels.push_back(base::concat(host_of(number), ":", number < workers() ? "" : "server ", number < workers() ? number : number - workers()));
      logs.push_back(*folder / log_name(number, workers()));
    }
    RunOutput output(options_.where_to_print(), std::move(labels), logs);
    RunRecord record(*folder, job_, options_.scheme);
    if (workers() > 1) say(base::concat(workers(), " workers; logs, plan and run.json in ", folder->string()));
    const launch::ClusterOutcome outcome = launch::run_cluster_job(
        job_, {.coordinator = listener(record),
               .on_host = [&](const std::string& host, const launch::AgentHello& hello) { record.on_host(host, hello); },
               .on_output =
                   [&](const launch::NodeOutput& bytes) {
                     if (const Status status = output.take(bytes); !status) say(status.error().message);
                   },
               .on_remark = [](const std::string& text) { say(text); }});
    output.finish();
    const int code = exit_code(outcome);
    if (workers() > 1) print_table(outcome);
    if (const Status status = record.finish(outcome, code); !status) say(status.error().message);
    explain(outcome, output);
    return code;
  }

 private:
  int workers() const { return static_cast<int>(job_.hosts.size()); }
  int processes() const { return workers() + static_cast<int>(job_.server_hosts.size()); }
  const std::string& host_of(int number) const {
    return number < workers() ? job_.hosts[static_cast<std::size_t>(number)] : job_.server_hosts[static_cast<std::size_t>(number - workers())];
  }

  static cluster::CoordinatorListener listener(RunRecord& record) {
    return {.on_wait = [](const std::string& text) { say(text); },
            .on_plan = [&record](const plan::Plan& plan, const std::vector<plan::LayerChoice>&, const plan::Speeds&, const Model&) { record.on_plan(plan); },
            .on_links = [&record](const std::vector<cluster::MeasuredLink>& links) { record.on_links(links); },
            .on_change = [&record](const cluster::PlanChange& change) { record.on_change(change); },
            .on_note = [&record](Rank from, const std::string& body) { record.on_note(from, body); }};
  }

  static int exit_code(const launch::ClusterOutcome& outcome) {
    if (outcome.interrupted) return kSignalled + *outcome.interrupted;
    if (outcome.culprit) {
      const launch::Exit& exit = *outcome.processes[static_cast<std::size_t>(*outcome.culprit)].exit;
      return exit.signal != 0 ? kSignalled + exit.signal : exit.code;
    }
    return outcome.error ? exit_code_of(outcome.error->code) : kSuccess;
  }

  void print_table(const launch::ClusterOutcome& outcome) const {
    std::size_t width = 4;
    for (int number = 0; number < processes(); ++number) width = std::max(width, host_of(number).size());
    std::fprintf(stderr, "%-9s  %-*s  %-22s  %9s  %9s  %s\n", "process", static_cast<int>(width), "host", "ended with", "time", "CPU", "log");
    for (int number = 0; number < processes(); ++number) {
      const launch::JobProcess& process = outcome.processes[static_cast<std::size_t>(number)];
      const std::string ended = process.exit ? process.exit->text() : process.pid == 0 ? "(never started)" : "(not known)";
      std::fprintf(stderr, "%-9s  %-*s  %-22s  %9s  %9s  %s\n", plan::node_name(Rank{number}, workers()).c_str(), static_cast<int>(width),
                   host_of(number).c_str(), ended.c_str(), base::readable_seconds(process.seconds).c_str(),
                   base::readable_seconds(process.cpu_seconds).c_str(), log_name(number, workers()).c_str());
    }
  }

  // The reason last, where people look.
  void explain(const launch::ClusterOutcome& outcome, const RunOutput& output) const {
    if (outcome.interrupted) return say("interrupted");
    if (!outcome.error && !outcome.culprit) {
      if (!outcome.was_joined && workers() > 1) {
        say("the script made no optimiser of PyTorch's and asked TensorFlow for no gradient that Poseidon could see: each rank has run all of it by itself");
      }
      return;
    }
    if (outcome.error) say(outcome.error->message);
    if (!outcome.culprit) return;
    const std::string words = output.last_words(*outcome.culprit);
    const launch::JobProcess& process = outcome.processes[static_cast<std::size_t>(*outcome.culprit)];
    say(base::concat(plan::node_name(Rank{*outcome.culprit}, workers()), " on ", process.host, " ended with ", process.exit->text(),
                     words.empty() ? " and has written no error" : ". The last that it wrote:"));
    if (!words.empty()) std::fprintf(stderr, "%s\n", words.c_str());
  }

  const RunOptions& options_;
  launch::ClusterJobOptions job_;
};

// Where the command is Poseidon's own training of a prototxt, or Caffe's: the arguments of train_command.
std::optional<std::vector<std::string>> training_of_prototxt(const std::vector<std::string>& command) {
  if (command.size() < 2) return std::nullopt;
  const std::string program = std::filesystem::path(command.front()).filename();
  const std::vector<std::string> arguments(command.begin() + 1, command.end());
  if (program == "caffe" || program == "caffe.bin") return caffe_training(arguments);
  if (program != "poseidon" || arguments.front() != "train") return std::nullopt;
  return std::vector<std::string>(arguments.begin() + 1, arguments.end());
}

// `poseidon run -H a,b poseidon train --solver s` is `poseidon train --solver s -H a,b`, which knows the training's own words.
int hand_over(const RunOptions& options, const CLI::App& app, std::vector<std::string> training) {
  const std::set<std::string> shared = {"--workers", "--hosts", "--hostfile", "--cluster", "--out", "--dry-run", "--scheme", "--bandwidth", "--ssh-args",
                                        "--ssh", "--remote-program", "--interface", "--network", "--lanes", "--pin-lanes", "--tls"};
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || shared.contains(option->get_name())) continue;
    say(option->get_name() + " is for scripts; `poseidon train` does not have it");
    return kWrongUsage;
  }
  for (std::string& flag : options.where.as_flags()) training.push_back(std::move(flag));
  if (options.workers) training.push_back(base::concat("--workers=", *options.workers));
  if (options.folder) training.push_back("--run-folder=" + *options.folder);
  if (options.bandwidth) training.push_back("--bandwidth=" + *options.bandwidth);
  if (app.count("--scheme") > 0) training.push_back("--scheme=" + options.scheme);
  if (app.count("--lanes") > 0) training.push_back(base::concat("--lanes=", options.lanes));
  if (options.pin_lanes) training.emplace_back("--pin-lanes");
  if (options.tls) training.emplace_back("--tls");
  if (options.dry_run) training.emplace_back("--dry-run");
  return train_command(training);
}

// What begins like a flag and is none of ours would be taken for the program.
std::string no_such_flag(const std::string& word, const CLI::App& app) {
  const std::string flag = word.substr(0, word.find('='));
  if (flag == "--gpu") {
    return "there is no --gpu: leave it away. The workers of a host take its GPUs in turn, and --env CUDA_VISIBLE_DEVICES=0,1 says which there are; "
           "prototxts (`poseidon train`) are computed on the CPU in this version";
  }
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) flags.push_back(option->get_name());
  return base::concat("there is no flag ", flag, base::did_you_mean(flag, flags), base::near_matches(flag, flags).empty() ? ";" : "",
                      " --help shows the flags, and a command that begins with a dash stands behind --");
}

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  RunOptions options;
  CLI::App app;
  options.describe(app);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  options.command = app.remaining();
  if (!options.command.empty() && options.command.front() == "--") {
    options.command.erase(options.command.begin());
  } else if (!options.command.empty() && options.command.front().starts_with("-")) {
    say(no_such_flag(options.command.front(), app));
    return kWrongUsage;
  }
  if (options.command.empty()) {
    std::fputs("poseidon run: there is no command: poseidon run -n 4 python train.py\n", stderr);
    return kWrongUsage;
  }
  std::vector<std::string> words = options.command;
  if (words.size() == 1) {
    const Result<std::vector<std::vector<std::string>>> split = launch::split_commands(words.front(), 1);
    if (split && split->size() == 1) words = split->front();
  }
  if (std::optional<std::vector<std::string>> training = training_of_prototxt(words)) return hand_over(options, app, std::move(*training));
  Result<launch::ClusterJobOptions> job = options.job();
  if (!job) return complain(job.error());
  if (!options.dry_run) return Run(options, std::move(*job)).run();
  print_placement(*job);
  return kSuccess;
}

}  // namespace poseidon::app
