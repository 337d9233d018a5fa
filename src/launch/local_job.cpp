#include "launch/local_job.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "base/checksum.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "plan/plan.h"
#include "runtime/real/lane.h"
#include "runtime/real/tcp_transport.h"

namespace poseidon::launch {
namespace {

using Clock = std::chrono::steady_clock;
using runtime::kCoordinator;

constexpr std::size_t kSecretBytes = 32;
constexpr std::size_t kErrorBytesMax = 64 * 1024;
constexpr std::string_view kErrorSuffix = ".error";
// For a user who has asked twice: workers that can hear that the job is over need no longer, and the others will not end.
constexpr auto kHurriedFarewell = std::chrono::milliseconds(300);

std::string worker_file(int rank, std::string_view suffix) { return base::concat("worker-", rank, suffix); }
std::string server_file(int number, std::string_view suffix) { return base::concat("server-", number, suffix); }

void leave_sentence(const std::string& file, const Error& error) {
  const char* const folder = std::getenv("POSEIDON_RUN_FOLDER");
  if (folder == nullptr) return;
  const Status written =
      base::write_file_atomically(std::filesystem::path(folder) / file, base::concat(to_string(error.code), "\n", error.message));
  if (!written) base::log::warning(written.error().message);
}

// The job's secret in a file that only this user can read, gone with the job.
class SecretFile {
 public:
  static Result<SecretFile> create(std::span<const std::byte> secret) {
    const char* const folder = std::getenv("XDG_RUNTIME_DIR");
    std::string path = base::concat(folder != nullptr ? folder : "/tmp", "/poseidon-secret-XXXXXX");
    const int fd = ::mkostemp(path.data(), O_CLOEXEC);  // mode 0600
    if (fd < 0) return Error{ErrorCode::kSystem, base::concat("cannot make a file for the job's secret, ", path, ": ", std::strerror(errno))};
    const bool written = ::write(fd, secret.data(), secret.size()) == static_cast<ssize_t>(secret.size());
    SecretFile file(path);
    if (::close(fd) != 0 || !written) return Error{ErrorCode::kSystem, base::concat("cannot write the job's secret to ", path, ": is the disk full?")};
    return file;
  }
  ~SecretFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  SecretFile(SecretFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  SecretFile& operator=(SecretFile&&) = delete;
  const std::string& path() const { return path_; }

 private:
  explicit SecretFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// Signals as bytes to poll for. Blocks them, so that they come only here; children unblock them again.
class SignalDescriptor {
 public:
  SignalDescriptor() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
    fd_ = ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  }
  ~SignalDescriptor() {
    ::close(fd_);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SignalDescriptor(const SignalDescriptor&) = delete;
  SignalDescriptor& operator=(const SignalDescriptor&) = delete;

  int fd() const { return fd_; }
  // The next signal that has come; 0: none.
  int next() const {
    signalfd_siginfo info{};
    return ::read(fd_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  int fd_ = -1;
  sigset_t before_{};
};

class LocalJob {
 public:
  LocalJob(const LocalJobOptions& options, cluster::CoordinatorListener listener)
      : options_(options), listener_(std::move(listener)), farewell_(options.farewell_max), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~LocalJob() {
    if (lane_) {
      lane_->run([this] {
        coordinator_.reset();
        transport_.reset();
      });
    }
    ::close(wake_);
  }

  JobOutcome run(const std::function<void(std::function<void(const Error&)>)>& give_abort) {
    const std::vector<std::byte> secret = base::random_bytes(kSecretBytes);
    Result<SecretFile> secret_file = SecretFile::create(secret);
    if (!secret_file) return {secret_file.error(), std::nullopt, {}};
    lane_ = std::make_unique<runtime::real::RealLane>("coordinator");
    // Before the coordinator lives: from then on its callbacks run on the lane, and may want to abort.
    give_abort([this](const Error& why) {
      lane_->post([this, why] {
        if (coordinator_) coordinator_->abort(why);
      });
    });
    if (const Status status = open(secret); !status) return {status.error(), std::nullopt, {}};
    if (const Status status = start_all(secret_file->path()); !status) end(status.error());
    watch();
    JobOutcome outcome;
    const std::lock_guard lock(mutex_);
    outcome.error = error_;
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
  std::filesystem::path file(int node, std::string_view suffix) const {
    return options_.run_folder / (is_worker(node) ? worker_file(node, suffix) : server_file(node - options_.workers, suffix));
  }

  Status open(const std::vector<std::byte>& secret) {
    const int nodes = options_.workers + options_.servers;
    Result<std::unique_ptr<runtime::real::TcpTransport>> transport = runtime::real::TcpTransport::open(
        *lane_, {.key = wire::job_key(secret),
                 .self = kCoordinator,
                 .listen_host = options_.host,
                 .listen_port = options_.port,
                 .admits = [nodes](Member peer) -> Status {
                   if (index(peer) < static_cast<std::uint32_t>(nodes)) return {};
                   return Error{ErrorCode::kRefused, base::concat("the job has no member ", index(peer))};
                 }});
    if (!transport) return transport.error();
    transport_ = std::move(*transport);
    cluster::CoordinatorListener listener = listener_;
    listener.on_start = [this, told = listener_.on_start] {
      started_ = true;
      wake();
      if (told) told();
    };
    listener.on_finish = [this] { over(std::nullopt); };
    listener.on_fail = [this](const Error& why) { over(why); };
    lane_->run([&] {
      coordinator_ = std::make_unique<cluster::Coordinator>(*lane_, *transport_, options_.coordinator, std::move(listener));
    });
    return {};
  }

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
      std::error_code ignored;
      std::filesystem::remove(file(node, kErrorSuffix), ignored);
      ChildOptions child{command_of(node), options_.environment, file(node, ".log")};
      const int number = is_worker(node) ? node : node - options_.workers;
      child.environment["POSEIDON_ROLE"] = is_worker(node) ? "worker" : "server";
      child.environment["POSEIDON_RANK"] = std::to_string(number);
      child.environment["POSEIDON_LOCAL_RANK"] = std::to_string(number);
      child.environment["POSEIDON_WORLD_SIZE"] = std::to_string(options_.workers);
      child.environment["POSEIDON_LOCAL_SIZE"] = std::to_string(is_worker(node) ? options_.workers : options_.servers);
      child.environment["POSEIDON_SERVERS"] = std::to_string(options_.servers);
      child.environment["POSEIDON_COORDINATOR"] = base::concat(options_.host, ":", transport_->port());
      child.environment["POSEIDON_SECRET_FILE"] = secret_path;
      child.environment["POSEIDON_RUN_FOLDER"] = options_.run_folder.string();
      Result<ChildProcess> process = ChildProcess::start(child);
      if (!process) return process.error();
      nodes_.push_back({*process, std::nullopt, 0, std::nullopt});
    }
    return {};
  }

  // From the coordinator's lane, or before it has begun.
  void over(std::optional<Error> why) {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      if (!error_) error_ = std::move(why);
    }
    wake();
  }
  void wake() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_, &one, sizeof one);
  }
  void end(const Error& why) {
    lane_->post([this, why] { coordinator_->abort(why); });
  }
  bool is_over() {
    const std::lock_guard lock(mutex_);
    return over_;
  }

  // Until the job is over and every child has ended.
  void watch() {
    while (true) {
      for (int signal = signals_.next(); signal != 0; signal = signals_.next()) {
        if (signal != SIGCHLD) on_signal(signal);
      }
      if (started_.exchange(false)) {
        for (Node& node : nodes_) node.cpu_seconds_at_start = node.process.cpu_seconds();
      }
      reap();
      const bool all_ended = std::all_of(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.exit.has_value(); });
      if (all_ended && is_over()) return;
      if (is_over() && !kill_at_) kill_at_ = Clock::now() + farewell_;
      if (kill_at_ && Clock::now() >= *kill_at_) {
        for (const Node& node : nodes_) {
          if (!node.exit) node.process.kill(SIGKILL);
        }
        kill_at_ = Clock::now() + farewell_;
      }
      const auto left = kill_at_ ? std::chrono::ceil<std::chrono::milliseconds>(*kill_at_ - Clock::now()).count() : -1;
      std::uint64_t ignored = 0;
      pollfd fds[2] = {{signals_.fd(), POLLIN, 0}, {wake_, POLLIN, 0}};
      ::poll(fds, 2, static_cast<int>(kill_at_ ? std::max<std::int64_t>(left, 0) : -1));
      if (fds[1].revents != 0) [[maybe_unused]] const ssize_t n = ::read(wake_, &ignored, sizeof ignored);
    }
  }

  void on_signal(int signal) {
    const bool is_first = !interrupted_.has_value();
    {
      const std::lock_guard lock(mutex_);
      interrupted_ = signal;
    }
    if (!is_first) {
      farewell_ = std::min<std::chrono::milliseconds>(farewell_, kHurriedFarewell);
      if (kill_at_) kill_at_ = std::min(*kill_at_, Clock::now() + farewell_);
    }
    lane_->post([this, is_first, signal] {
      if (is_first) return coordinator_->request_stop();
      coordinator_->abort(Error{ErrorCode::kAborted, base::concat("interrupted twice (", ::strsignal(signal), ")")});
    });
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
    const std::filesystem::path said = file(number, kErrorSuffix);
    const Result<std::string> sentence = base::read_file(said, kErrorBytesMax);
    Error why{ErrorCode::kPeerLost,
              base::concat(plan::node_name(Rank{number}, options_.workers), " (pid ", node.process.pid(), ") ended with ", node.exit->text(),
                           " before the job was over; its log is ", file(number, ".log").string())};
    if (sentence) {
      why = {ErrorCode::kInvalid, *sentence};
      if (const std::size_t colon = sentence->find('\n'); colon != std::string::npos) {
        for (const ErrorCode code : {ErrorCode::kInvalid, ErrorCode::kNotFound, ErrorCode::kPeerLost, ErrorCode::kRefused,
                                     ErrorCode::kTimeout, ErrorCode::kAborted, ErrorCode::kSystem, ErrorCode::kCorruptFrame}) {
          if (sentence->compare(0, colon, to_string(code)) == 0) why.code = code;
        }
        why.message = sentence->substr(colon + 1);
      }
      std::error_code ignored;
      std::filesystem::remove(said, ignored);
    }
    if (!is_over()) end(why);
  }

  const LocalJobOptions& options_;
  cluster::CoordinatorListener listener_;
  std::chrono::milliseconds farewell_;           // main thread only, as is the next
  std::optional<Clock::time_point> kill_at_;     // whoever lives then; known once the job is over
  SignalDescriptor signals_;  // before the lane's thread, which inherits the mask
  int wake_;
  std::unique_ptr<runtime::real::RealLane> lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;    // lane only
  std::unique_ptr<cluster::Coordinator> coordinator_;         // lane only
  std::vector<Node> nodes_;                                   // by rank, then the servers; main thread only
  std::atomic<bool> started_ = false;                         // set by the lane: the main thread has not looked at it yet
  std::mutex mutex_;
  bool over_ = false;                                         // guarded by mutex_
  std::optional<Error> error_;                                // guarded by mutex_
  std::optional<int> interrupted_;                            // written by the main thread, guarded by mutex_
};

}  // namespace

JobOutcome run_local_job(const LocalJobOptions& options, cluster::CoordinatorListener listener,
                         const std::function<void(std::function<void(const Error&)> abort)>& give_abort) {
  LocalJob job(options, std::move(listener));
  return job.run(give_abort);
}

void report_error(int rank, const Error& error) { leave_sentence(worker_file(rank, kErrorSuffix), error); }

void report_server_error(int number, const Error& error) { leave_sentence(server_file(number, kErrorSuffix), error); }

}  // namespace poseidon::launch
