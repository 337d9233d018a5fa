#include "launch/local_job.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>

#include "base/checksum.h"
#include "base/text.h"
#include "launch/coordinator_host.h"
#include "launch/secret_file.h"
#include "launch/sentence.h"
#include "launch/signals.h"
#include "plan/plan.h"

namespace poseidon::launch {
namespace {

using Clock = std::chrono::steady_clock;

// For a user who has asked twice: workers that can hear that the job is over need no longer, and the others will not end.
constexpr auto kHurriedFarewell = std::chrono::milliseconds(300);


class LocalJob {
 public:
  LocalJob(const LocalJobOptions& options, cluster::CoordinatorListener listener)
      : options_(options), listener_(std::move(listener)) {}

  JobOutcome run(const std::function<void(std::function<void(const Error&)>)>& give_abort) {
    const std::vector<std::byte> secret = base::random_bytes(kSecretBytes);
    Result<SecretFile> secret_file = SecretFile::create(secret);
    if (!secret_file) return {secret_file.error(), std::nullopt, {}};
    // Before the coordinator lives: from then on its callbacks run on its lane, and may want to abort.
    give_abort([this](const Error& why) { host_.abort(why); });
    const CoordinatorHostOptions host{.host = options_.host, .port = options_.port, .tls = options_.tls, .coordinator = options_.coordinator};
    if (const Status status = host_.open(secret, host, std::move(listener_)); !status) return {status.error(), std::nullopt, {}};
    if (const Status status = start_all(secret_file->path()); !status) host_.abort(status.error());
    watch();
    JobOutcome outcome;
    outcome.error = host_.error();
    outcome.interrupted = interrupted_;
    for (const Node& node : nodes_) {
      outcome.exits.push_back(node.exit.value_or(Exit{}));
      outcome.cpu_seconds.push_back(node.cpu_seconds_at_start ? std::max(0.0, node.cpu_seconds - *node.cpu_seconds_at_start) : 0);
    }
    return outcome;
  }

 private:
  // A worker's or a dedicated server's process.
  struct Node {
    ChildProcess process;
    std::optional<Exit> exit;
    double cpu_seconds = 0;                      // in all, once it has ended
    std::optional<double> cpu_seconds_at_start;  // of the job
  };
  bool is_worker(int node) const { return node < options_.workers; }
  std::string name(int node) const { return process_name(is_worker(node) ? node : node - options_.workers, !is_worker(node)); }
  std::filesystem::path log(int node) const { return options_.run_folder / (name(node) + ".log"); }

  std::vector<std::string> command_of(int node) const {
    std::vector<std::string> command = options_.start;
    for (std::string& word : command) {
      constexpr std::string_view kRank = "{rank}";
      if (const std::size_t at = word.find(kRank); at != std::string::npos) word.replace(at, kRank.size(), std::to_string(node));
    }
    const std::vector<std::string>& own = is_worker(node) ? options_.command : options_.server_command;
    command.insert(command.end(), own.begin(), own.end());
    return command;
  }

  Status start_all(const std::string& secret_path) {
    for (int node = 0; node < options_.workers + options_.servers; ++node) {
      take_sentence(options_.run_folder, name(node));
      ChildOptions child{.command = command_of(node), .environment = options_.environment, .log = log(node)};
      const int number = is_worker(node) ? node : node - options_.workers;
      child.environment["POSEIDON_ROLE"] = is_worker(node) ? "worker" : "server";
      child.environment["POSEIDON_RANK"] = std::to_string(number);
      child.environment["POSEIDON_LOCAL_RANK"] = std::to_string(number);
      child.environment["POSEIDON_WORLD_SIZE"] = std::to_string(options_.workers);
      child.environment["POSEIDON_LOCAL_SIZE"] = std::to_string(is_worker(node) ? options_.workers : options_.servers);
      child.environment["POSEIDON_SERVERS"] = std::to_string(options_.servers);
      child.environment["POSEIDON_COORDINATOR"] = base::concat(options_.host, ":", host_.port());
      child.environment["POSEIDON_SECRET_FILE"] = secret_path;
      child.environment["POSEIDON_TLS"] = options_.tls ? "1" : "0";
      child.environment["POSEIDON_RUN_FOLDER"] = options_.run_folder.string();
      Result<ChildProcess> process = ChildProcess::start(child);
      if (!process) return process.error();
      nodes_.push_back({*process, std::nullopt, 0, std::nullopt});
    }
    return {};
  }

  // Until the job is over and every child has ended.
  void watch() {
    while (true) {
      for (int signal = signals_.next(); signal != 0; signal = signals_.next()) {
        if (signal != SIGCHLD) on_signal(signal);
      }
      if (host_.take_started()) {
        has_started_ = true;
        for (Node& node : nodes_) node.cpu_seconds_at_start = node.process.cpu_seconds();
      }
      reap();
      const bool all_ended = std::all_of(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.exit.has_value(); });
      if (all_ended && host_.is_over()) return;
      if (host_.is_over() && !kill_at_) kill_at_ = Clock::now() + farewell();
      if (kill_at_ && Clock::now() >= *kill_at_) {
        for (const Node& node : nodes_) {
          if (!node.exit) node.process.kill(SIGKILL);
        }
        kill_at_ = Clock::now() + farewell();
      }
      const auto left = kill_at_ ? std::chrono::ceil<std::chrono::milliseconds>(*kill_at_ - Clock::now()).count() : -1;
      pollfd fds[2] = {{signals_.fd(), POLLIN, 0}, {host_.wake_descriptor(), POLLIN, 0}};
      ::poll(fds, 2, static_cast<int>(kill_at_ ? std::max<std::int64_t>(left, 0) : -1));
      if (fds[1].revents != 0) host_.clear_wake();
    }
  }

  std::chrono::milliseconds farewell() {
    const std::chrono::milliseconds longest = host_.error() ? options_.farewell_max : options_.parting_max;
    return is_hurried_ ? std::min<std::chrono::milliseconds>(longest, kHurriedFarewell) : longest;
  }

  void on_signal(int signal) {
    const SignalEffect effect = effect_of(options_.effects, signal);
    if (effect == SignalEffect::kTell && has_started_) {
      for (int node = 0; node < options_.workers; ++node) nodes_[static_cast<std::size_t>(node)].process.kill(kTellSignal);
    }
    if (effect != SignalEffect::kEnd) return;
    const bool is_first = !interrupted_.has_value();
    interrupted_ = signal;
    if (!is_first) {
      is_hurried_ = true;
      if (kill_at_) kill_at_ = std::min(*kill_at_, Clock::now() + farewell());
    }
    if (is_first) return host_.request_stop();
    host_.abort(Error{ErrorCode::kAborted, base::concat("interrupted twice (", ::strsignal(signal), ")")});
  }

  void reap() {
    for (std::size_t number = 0; number < nodes_.size(); ++number) {
      Node& node = nodes_[number];
      int status = 0;
      rusage usage{};
      if (node.exit || ::wait4(node.process.pid(), &status, WNOHANG, &usage) != node.process.pid()) continue;
      node.exit = ChildProcess::exit_of(status);
      const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
      node.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
      on_exit(static_cast<int>(number), node);
    }
  }

  // A process that ends while the job runs ends the job. What it has said about that itself is the best reason.
  void on_exit(int number, const Node& node) {
    const std::optional<Error> said = take_sentence(options_.run_folder, name(number));
    const Error why = said.value_or(Error{
        ErrorCode::kPeerLost, base::concat(plan::node_name(Rank{number}, options_.workers), " (pid ", node.process.pid(), ") ended with ",
                                           node.exit->text(), " before the job was over; its log is ", log(number).string())});
    if (!host_.is_over()) host_.abort(why);
  }

  const LocalJobOptions& options_;
  cluster::CoordinatorListener listener_;
  bool is_hurried_ = false;                   // asked twice
  std::optional<Clock::time_point> kill_at_;  // whoever lives then; known once the job is over
  SignalDescriptor signals_{SIGINT, SIGTERM, SIGHUP, SIGCHLD};  // before the host, whose lane inherits the mask
  CoordinatorHost host_;
  std::vector<Node> nodes_;                                     // by rank, then the servers
  std::optional<int> interrupted_;
  bool has_started_ = false;  // all workers are ready, and can be told
};

}  // namespace

JobOutcome run_local_job(const LocalJobOptions& options, cluster::CoordinatorListener listener,
                         const std::function<void(std::function<void(const Error&)> abort)>& give_abort) {
  LocalJob job(options, std::move(listener));
  return job.run(give_abort);
}

}  // namespace poseidon::launch
