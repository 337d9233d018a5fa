// `poseidon run`: trains an ordinary script for one process on many.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/run_files.h"
#include "apps/poseidon/run_options.h"
#include "apps/poseidon/run_output.h"
#include "apps/poseidon/run_record.h"
#include "base/text.h"
#include "launch/cluster_job.h"
#include "plan/plan.h"

namespace poseidon::app {
namespace {

void say(const std::string& text) { std::fprintf(stderr, "poseidon run: %s\n", text.c_str()); }

int complain(const Error& error) {
  say(error.message);
  return exit_code_of(error.code);
}

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + launch::shell_quoted(word);
  return line;
}

// What the run's folder is called after: the script, or else the program.
std::string stem_of(const std::vector<std::string>& command) {
  const auto script = std::find_if(command.begin(), command.end(), [](const std::string& word) { return word.ends_with(".py"); });
  return std::filesystem::path(script == command.end() ? command.front() : *script).stem().string();
}

class Run {
 public:
  Run(const RunOptions& options, launch::ClusterJobOptions job) : options_(options), job_(std::move(job)) {}

  void describe() const {
    for (std::size_t rank = 0; rank < job_.hosts.size(); ++rank) {
      const std::string& host = job_.hosts[rank];
      std::printf("rank %zu on %s%s: %s\n", rank, host.c_str(), launch::is_this_host(host) ? " (this host)" : "",
                  joined(job_.commands[job_.commands.size() == 1 ? 0 : rank]).c_str());
    }
    for (std::size_t server = 0; server < job_.server_hosts.size(); ++server) {
      std::printf("server %zu on %s: %s\n", server, job_.server_hosts[server].c_str(), joined(job_.server_command).c_str());
    }
    std::printf("folder on every host: %s\n", job_.folder.c_str());
    const auto other = std::find_if(job_.hosts.begin(), job_.hosts.end(), [](const std::string& host) { return !launch::is_this_host(host); });
    if (other == job_.hosts.end()) return;
    std::printf("other hosts are reached by: %s\n", joined(launch::agent_command(*other, job_.reach)).c_str());
    std::printf("they reach this one at: %s\n", job_.addresses.empty() ? "no address" : base::join_words(job_.addresses).c_str());
  }

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
        say("the script made no optimiser of PyTorch's that Poseidon could see: each rank has run all of it by itself");
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

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  RunOptions options;
  CLI::App app;
  options.describe(app);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  options.command = app.remaining();
  if (!options.command.empty() && options.command.front() == "--") options.command.erase(options.command.begin());
  if (options.command.empty()) {
    std::fputs("poseidon run: there is no command: poseidon run -n 4 python train.py\n", stderr);
    return kWrongUsage;
  }
  Result<launch::ClusterJobOptions> job = options.job();
  if (!job) return complain(job.error());
  Run run(options, std::move(*job));
  if (!options.dry_run) return run.run();
  run.describe();
  return kSuccess;
}

}  // namespace poseidon::app
