#include "launch/cluster_job.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/checksum.h"
#include "base/text.h"
#include "launch/coordinator_host.h"
#include "launch/descriptor.h"
#include "launch/secret_file.h"
#include "launch/signals.h"
#include "plan/plan.h"

namespace poseidon::launch {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kChunkBytes = 64 * 1024;
constexpr std::size_t kComplaintBytesMax = 4096;
constexpr auto kExplainAfter = std::chrono::seconds(2);
constexpr auto kAgentFarewell = std::chrono::seconds(7);  // longer than an agent takes to kill what it has started
constexpr auto kVerdictMax = std::chrono::seconds(5);     // longer than the coordinator takes to miss a member
constexpr auto kStep = milliseconds(500);                 // for what nothing wakes us for
constexpr int kSshFailed = 255;                           // ssh(1)
constexpr int kNoSuchProgram = 127;                       // POSIX shells

// The last line with something in it.
std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  return std::string(text.substr(text.rfind('\n') == text.npos ? 0 : text.rfind('\n') + 1));
}

std::string without_user(const std::string& host) { return host.substr(host.find('@') == std::string::npos ? 0 : host.find('@') + 1); }

class ClusterJob {
 public:
  ClusterJob(const ClusterJobOptions& options, ClusterJobListener listener) : options_(options), listener_(std::move(listener)) {
    std::signal(SIGPIPE, SIG_IGN);  // an agent that has gone is seen by its exit
    for (const std::string& host : options_.hosts) place(host);
    for (const std::string& host : options_.server_hosts) place(host);
    is_local_ = std::all_of(links_.begin(), links_.end(), [](const Link& link) { return link.is_here; });
  }

  ClusterOutcome run() {
    const std::vector<std::byte> secret = base::random_bytes(kSecretBytes);
    if (listener_.give_abort) listener_.give_abort([this](const Error& why) { host_.abort(why); });
    Status status = open(secret);
    if (status) status = start_agents();
    if (status) status = await("to answer", [](const Link& link) { return link.hello.has_value(); });
    if (status) status = check_agents();
    if (status) {
      start_processes(base::to_hex(secret));
      status = await("to start its processes", [](const Link& link) { return link.has_started; });
    }
    if (status) {
      watch();
    } else {
      host_.settle(status.error());
    }
    part();
    ClusterOutcome outcome;
    outcome.error = host_.error();
    outcome.interrupted = interrupted_;
    outcome.culprit = culprit_;
    outcome.was_joined = was_joined_;
    outcome.processes = std::move(processes_);
    return outcome;
  }

 private:
  // An agent.
  struct Link {
    std::string host;
    bool is_here = false;
    std::vector<int> numbers;  // of the processes that belong there
    std::optional<ChildProcess> process;
    Descriptor input;
    Descriptor output;
    Descriptor error;
    AgentMessageReader reader{false};
    std::optional<AgentHello> hello;
    bool has_started = false;
    std::optional<Error> failure;  // nothing can be expected of it any more
    std::string complaint;         // the last of its standard error
    std::optional<Exit> exit;
  };

  int workers() const { return static_cast<int>(options_.hosts.size()); }
  std::string name(int number) const { return plan::node_name(Rank{number}, workers()); }
  std::string name_with_place(int number) const {
    const JobProcess& process = processes_[static_cast<std::size_t>(number)];
    return base::concat(name(number), " (pid ", process.pid, " on ", process.host, ")");
  }
  std::string text_of(const Link& link) const { return link.is_here ? "this host" : "host " + link.host; }
  void remark(const std::string& text) const {
    if (listener_.on_remark) listener_.on_remark(text);
  }

  void place(const std::string& host) {
    const bool is_here = is_this_host(host);
    auto found = std::find_if(links_.begin(), links_.end(), [&](const Link& link) { return is_here ? link.is_here : link.host == host; });
    if (found == links_.end()) {
      links_.emplace_back();
      found = links_.end() - 1;
      found->host = host;
      found->is_here = is_here;
    }
    found->numbers.push_back(static_cast<int>(processes_.size()));
    processes_.push_back({.host = host, .pid = 0, .exit = std::nullopt, .cpu_seconds = 0, .seconds = 0});
    begins_.emplace_back();
  }

  Status open(const std::vector<std::byte>& secret) {
    if (!is_local_ && options_.addresses.empty()) {
      return Error{ErrorCode::kNotFound, "this host has no address at which others could reach it: is it on a network?"};
    }
    return host_.open(secret, {.host = is_local_ ? "127.0.0.1" : "0.0.0.0", .port = options_.port, .tls = options_.tls, .coordinator = options_.coordinator},
                      listener_.coordinator);
  }

  Status start_agents() {
    for (Link& link : links_) {
      std::array<std::array<int, 2>, 3> pipes{};
      for (auto& pipe : pipes) {
        if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return Error{ErrorCode::kSystem, base::concat("cannot make a pipe: ", std::strerror(errno))};
      }
      const Descriptor input(pipes[0][0]), output(pipes[1][1]), error(pipes[2][1]);
      link.input = Descriptor(pipes[0][1]);
      link.output = Descriptor(pipes[1][0]);
      link.error = Descriptor(pipes[2][0]);
      for (const Descriptor* end : {&link.output, &link.error}) ::fcntl(end->get(), F_SETFL, O_NONBLOCK);
      const Result<ChildProcess> process = ChildProcess::start({.command = link.is_here ? options_.own_agent : agent_command(link.host, options_.reach),
                                                                .environment = {},
                                                                .log = {},
                                                                .folder = {},
                                                                .input = input.get(),
                                                                .output = output.get(),
                                                                .error = error.get(),
                                                                .own_session = true,
                                                                .death_signal = SIGTERM});
      if (!process) return Error{process.error().code, base::concat(text_of(link), ": ", process.error().message)};
      link.process = *process;
    }
    return {};
  }

  // Until all agents have got so far. The error is of the first that cannot.
  template <typename Condition>
  Status await(const char* what, Condition condition) {
    const Clock::time_point begin = Clock::now();
    bool has_explained = false;
    while (true) {
      std::vector<std::string> missing;
      for (const Link& link : links_) {
        if (link.failure) return *link.failure;
        if (!condition(link)) missing.push_back(text_of(link));
      }
      if (missing.empty()) return {};
      if (interrupted_) return Error{ErrorCode::kAborted, "interrupted before the job began"};
      const auto waited = Clock::now() - begin;
      if (waited > options_.reach_max) {
        return Error{ErrorCode::kTimeout, base::concat(base::join_words(missing), " took longer than ", options_.reach_max.count() / 1000, " s ", what)};
      }
      if (waited > kExplainAfter && !has_explained) {
        has_explained = true;
        remark(base::concat("waits for ", base::join_words(missing), " ", what));
      }
      step(std::min<milliseconds>(kStep, std::chrono::ceil<milliseconds>(options_.reach_max - waited)));
    }
  }

  Status check_agents() const {
    for (const Link& link : links_) {
      if (listener_.on_host) listener_.on_host(link.host, *link.hello);
      if (link.hello->version == options_.version) continue;
      return Error{ErrorCode::kInvalid, base::concat(text_of(link), " has poseidon ", link.hello->version, ", and this is ", options_.version,
                                                     "; install the same everywhere")};
    }
    return {};
  }

  void start_processes(const std::string& secret) {
    AgentStart start{.secret = secret,
                     .coordinators = {},
                     .folder = options_.folder,
                     .environment = options_.environment,
                     .python = options_.python,
                     .workers = workers(),
                     .nodes = {}};
    const std::vector<std::string> own = is_local_ ? std::vector<std::string>{"127.0.0.1"} : options_.addresses;
    for (const std::string& address : own) start.coordinators.push_back({address, host_.port()});
    const Link& first = *std::find_if(links_.begin(), links_.end(), [](const Link& link) { return link.numbers.front() == 0; });
    start.environment["MASTER_ADDR"] = first.is_here ? own.front() : without_user(first.host);
    start.environment["MASTER_PORT"] = std::to_string(first.hello->free_port);
    for (Link& link : links_) {
      start.nodes.clear();
      const auto here = static_cast<int>(std::count_if(link.numbers.begin(), link.numbers.end(), [this](int number) { return number < workers(); }));
      set_threads(start.environment, link, here);
      for (std::size_t local = 0; local < link.numbers.size(); ++local) {
        start.nodes.push_back(process_start(link.numbers[local], static_cast<int>(local), here, static_cast<int>(link.numbers.size()) - here));
      }
      send(link, Speech::kStart, encode(start));
    }
  }

  // Threads that compute, where the user does not say: all ranks of a host share its cores.
  void set_threads(std::map<std::string, std::string>& environment, const Link& link, int ranks) const {
    if (options_.environment.contains("OMP_NUM_THREADS")) return;
    if (const char* const own = std::getenv("OMP_NUM_THREADS")) {
      environment["OMP_NUM_THREADS"] = own;
      return;
    }
    const int threads = std::max(1, link.hello->cores / std::max(1, ranks));
    environment["OMP_NUM_THREADS"] = std::to_string(threads);
    if (threads < link.hello->cores) {
      remark(base::concat("OMP_NUM_THREADS is ", threads, " on ", text_of(link), ": ", ranks, " ranks share ", link.hello->cores,
                          " cores (", options_.threads_flag, " for another number)"));
    }
  }

  NodeStart process_start(int number, int place, int ranks, int servers) const {
    const bool is_worker = number < workers();
    const int own_number = is_worker ? number : number - workers();
    const int local = is_worker ? place : place - ranks;
    NodeStart node{.number = number, .command = options_.server_command, .environment = {}};
    auto& environment = node.environment;
    environment["POSEIDON_ROLE"] = is_worker ? "worker" : "server";
    environment["POSEIDON_RANK"] = std::to_string(own_number);
    environment["POSEIDON_LOCAL_RANK"] = std::to_string(local);
    environment["POSEIDON_WORLD_SIZE"] = std::to_string(workers());
    environment["POSEIDON_LOCAL_SIZE"] = std::to_string(is_worker ? ranks : servers);
    environment["POSEIDON_SERVERS"] = std::to_string(options_.server_hosts.size());
    environment["POSEIDON_TLS"] = options_.tls ? "1" : "0";
    if (!is_worker) return node;
    node.command = options_.commands.size() == 1 ? options_.commands.front() : options_.commands[static_cast<std::size_t>(number)];
    environment["RANK"] = std::to_string(number);
    environment["LOCAL_RANK"] = std::to_string(local);
    environment["WORLD_SIZE"] = std::to_string(workers());
    environment["LOCAL_WORLD_SIZE"] = std::to_string(ranks);
    return node;
  }

  void send(Link& link, Speech kind, const std::string& body) const {
    const std::string bytes = to_bytes({kind, body});
    std::size_t done = 0;
    while (link.input.is_open() && done < bytes.size()) {
      const ssize_t n = ::write(link.input.get(), bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return link.input.close();  // why is told by its exit
      done += static_cast<std::size_t>(n);
    }
  }

  // Waits so long, or until something happens, and sees to it.
  void step(milliseconds most) {
    std::vector<pollfd> fds = {{signals_.fd(), POLLIN, 0}, {host_.wake_descriptor(), POLLIN, 0}};
    for (const Link& link : links_) {
      for (const Descriptor* stream : {&link.output, &link.error}) fds.push_back({stream->get(), POLLIN, 0});
    }
    ::poll(fds.data(), fds.size(), static_cast<int>(std::max(most, milliseconds(0)).count()));
    if ((fds[1].revents & POLLIN) != 0) host_.clear_wake();
    was_joined_ |= host_.take_started();
    for (std::size_t i = 0; i < links_.size(); ++i) {
      if (fds[2 * i + 3].revents != 0) read_error(links_[i]);
      if (fds[2 * i + 2].revents != 0) read_output(links_[i]);
    }
    for (int signal = signals_.next(); signal != 0; signal = signals_.next()) {
      if (signal == SIGCHLD) {
        reap();
      } else {
        on_signal(signal);
      }
    }
  }

  // What ssh, or the agent itself, has to say.
  void read_error(Link& link) {
    while (link.error.is_open()) {
      std::array<char, kChunkBytes> chunk;
      const ssize_t n = ::read(link.error.get(), chunk.data(), chunk.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) return link.error.close();
      link.complaint.append(chunk.data(), static_cast<std::size_t>(n));
      if (link.complaint.size() > kComplaintBytesMax) link.complaint.erase(0, link.complaint.size() - kComplaintBytesMax);
    }
  }

  void read_output(Link& link) {
    while (link.output.is_open()) {
      std::array<char, kChunkBytes> chunk;
      const ssize_t n = ::read(link.output.get(), chunk.data(), chunk.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) return link.output.close();
      link.reader.feed({chunk.data(), static_cast<std::size_t>(n)});
      while (!link.failure) {
        Result<std::optional<AgentMessage>> message = link.reader.next();
        if (!message) return give_up(link, message.error());
        if (!*message) break;
        if (const Status status = on_message(link, **message); !status) give_up(link, status.error());
      }
    }
  }

  Status on_message(Link& link, const AgentMessage& message) {
    if (message.kind == Speech::kHello) {
      Result<AgentHello> hello = decode_hello(message.body);
      if (!hello) return hello.error();
      link.hello = std::move(*hello);
    } else if (message.kind == Speech::kStarted) {
      const Result<AgentStarted> started = decode_started(message.body);
      if (!started) return started.error();
      for (const auto& [number, pid] : started->pids) {
        if (!has(link, number)) return stranger(number);
        processes_[static_cast<std::size_t>(number)].pid = pid;
        begins_[static_cast<std::size_t>(number)] = Clock::now();
      }
      link.has_started = true;
    } else if (message.kind == Speech::kRefused) {
      return decode_error(message.body);
    } else if (message.kind == Speech::kOutput) {
      const Result<NodeOutput> output = decode_output(message.body);
      if (!output) return output.error();
      if (!has(link, output->number)) return stranger(output->number);
      if (listener_.on_output) listener_.on_output(*output);
    } else if (message.kind == Speech::kExit) {
      const Result<NodeExit> exit = decode_exit(message.body);
      if (!exit) return exit.error();
      if (!has(link, exit->number)) return stranger(exit->number);
      on_exit(*exit);
    } else {
      return Error{ErrorCode::kCorruptFrame, "an agent does not say that to a launcher"};
    }
    return {};
  }

  static bool has(const Link& link, int number) { return std::find(link.numbers.begin(), link.numbers.end(), number) != link.numbers.end(); }
  static Error stranger(int number) { return {ErrorCode::kCorruptFrame, base::concat("it speaks of process ", number, ", which is not one of its own")}; }

  // Nothing can be expected of that host any more.
  void give_up(Link& link, const Error& why) {
    link.failure = Error{why.code, base::concat(text_of(link), ": ", why.message)};
    link.input.close();
    link.output.close();
    for (const int number : link.numbers) {
      JobProcess& process = processes_[static_cast<std::size_t>(number)];
      if (process.pid != 0 && !process.exit) lost_.push_back(number);
    }
    if (!host_.is_over()) host_.abort(*link.failure);
  }

  void reap() {
    for (Link& link : links_) {
      int status = 0;
      if (!link.process || link.exit || ::waitpid(link.process->pid(), &status, WNOHANG) != link.process->pid()) continue;
      link.exit = ChildProcess::exit_of(status);
      read_error(link);
      read_output(link);
      if (!link.failure && !is_parting_) give_up(link, why_gone(link));
    }
  }

  // Why an agent ended that was not to.
  Error why_gone(const Link& link) const {
    const std::string said = last_line(link.complaint.empty() ? std::string(link.reader.noise()) : link.complaint);
    const std::string quoted = said.empty() ? "" : base::concat(": ", said);
    if (link.is_here || link.reader.has_been_greeted()) {
      return {ErrorCode::kPeerLost, base::concat(link.is_here ? "its agent" : "the connection to its agent", " ended with ", link.exit->text(), quoted)};
    }
    if (link.exit->code == kSshFailed) {
      return {ErrorCode::kNotFound, base::concat("ssh cannot reach it", quoted, "; `ssh ", link.host, " true` must work without a password")};
    }
    if (link.exit->code == kNoSuchProgram) {
      return {ErrorCode::kNotFound, base::concat("there is no ", options_.reach.program, quoted, "; install poseidon there, or say with --remote-program where it is")};
    }
    return {ErrorCode::kSystem, base::concat("no agent could be started: ssh ended with ", link.exit->text(), quoted)};
  }

  // A process that ends before the others ends the job, but for one that has never joined: the script may have nothing to train.
  void on_exit(const NodeExit& end) {
    JobProcess& process = processes_[static_cast<std::size_t>(end.number)];
    if (process.exit) return;
    process.exit = end.exit;
    process.cpu_seconds = end.cpu_seconds;
    process.seconds = std::chrono::duration<double>(Clock::now() - begins_[static_cast<std::size_t>(end.number)]).count();
    const bool has_failed = end.exit.signal != 0 || end.exit.code != 0;
    const bool is_own_fault = has_failed && end.exit.code != kOthersFailed && !has_killed_ && !interrupted_;
    if (is_own_fault && !culprit_) culprit_ = end.number;
    if (!has_failed && !was_joined_) {
      early_.push_back(end.number);
      return;
    }
    if (host_.is_over()) return;
    const Error why = end.said.value_or(Error{
        ErrorCode::kPeerLost, base::concat(name_with_place(end.number), " ended with ", end.exit.text(), has_failed ? "" : " before the job was over")});
    // It knows of a failure that the coordinator has not told of; the coordinator will know better which, and soon.
    if (end.exit.code == kOthersFailed) {
      if (!verdict_at_) verdict_at_ = Clock::now() + kVerdictMax;
      if (!presumed_) presumed_ = why;
      return;
    }
    host_.abort(why);
  }

  void on_signal(int signal) {
    const SignalEffect effect = effect_of(options_.effects, signal);
    if (effect == SignalEffect::kTell && was_joined_) {
      for (Link& link : links_) send(link, Speech::kSignal, std::to_string(kTellSignal));
    }
    if (effect != SignalEffect::kEnd) return;
    const bool is_first = !interrupted_.has_value();
    interrupted_ = signal;
    if (!is_first) {
      kill_at_ = Clock::now();
      return;
    }
    if (options_.stops_together) {
      host_.request_stop();
      remark(base::concat("interrupted (", ::strsignal(signal), "): all workers stop after the same iteration; a second time ends them at once"));
      return;
    }
    kill_at_ = Clock::now() + options_.interrupt_max;
    for (Link& link : links_) send(link, Speech::kSignal, std::to_string(signal));
    remark(base::concat("interrupted (", ::strsignal(signal), "): the ranks have ", options_.interrupt_max.count() / 1000,
                        " s to end; a second time ends them at once"));
  }

  bool all_have_ended() const {
    for (std::size_t number = 0; number < processes_.size(); ++number) {
      const bool is_lost = std::find(lost_.begin(), lost_.end(), static_cast<int>(number)) != lost_.end();
      if (!processes_[number].exit && !is_lost) return false;
    }
    return true;
  }

  // Until every process has ended.
  void watch() {
    while (!all_have_ended()) {
      if (!early_.empty() && !host_.is_over() && host_.joined() > 0) {
        host_.abort({ErrorCode::kPeerLost, base::concat(name_with_place(early_.front()), " ended with exit code 0 and has trained nothing, while others wait "
                                                                                         "to train with it; every rank must come to its optimiser")});
      }
      if (verdict_at_ && Clock::now() >= *verdict_at_ && !host_.is_over()) host_.abort(*presumed_);
      if (host_.is_over() && !kill_at_) kill_at_ = Clock::now() + (host_.error() ? options_.farewell_max : options_.parting_max);
      if (kill_at_ && Clock::now() >= *kill_at_) {
        has_killed_ = true;
        for (Link& link : links_) send(link, Speech::kKill, "");
        kill_at_ = Clock::now() + kAgentFarewell;
        if (++kills_ > 1) give_up_all();
      }
      step(kill_at_ ? std::min<milliseconds>(kStep, std::chrono::ceil<milliseconds>(*kill_at_ - Clock::now())) : kStep);
    }
    if (!host_.is_over()) host_.settle(interrupted_ ? std::optional(Error{ErrorCode::kAborted, "interrupted"}) : std::nullopt);
  }

  // Agents that do not do what they are told.
  void give_up_all() {
    for (Link& link : links_) {
      if (!link.failure) give_up(link, {ErrorCode::kTimeout, "its agent does not answer; processes may be left there"});
    }
  }

  // Agents end when their input does.
  void part() {
    is_parting_ = has_killed_ = true;
    for (Link& link : links_) link.input.close();
    const Clock::time_point deadline = Clock::now() + kAgentFarewell;
    const auto is_left = [](const Link& link) { return link.process && !link.exit; };
    while (std::any_of(links_.begin(), links_.end(), is_left) && Clock::now() < deadline) step(milliseconds(50));
    for (const Link& link : links_) {
      if (is_left(link)) {
        link.process->kill(SIGKILL);
        ::waitpid(link.process->pid(), nullptr, 0);
      }
    }
  }

  const ClusterJobOptions& options_;
  ClusterJobListener listener_;
  SignalDescriptor signals_{SIGINT, SIGTERM, SIGHUP, SIGCHLD};  // before the host, whose lane inherits the mask
  CoordinatorHost host_;
  std::vector<Link> links_;
  bool is_local_ = true;
  std::vector<JobProcess> processes_;         // by number, as the next
  std::vector<Clock::time_point> begins_;
  std::vector<int> lost_;                     // of hosts that were given up
  std::vector<int> early_;                    // ended well before the job began
  bool was_joined_ = false;
  std::optional<int> interrupted_;
  std::optional<int> culprit_;
  std::optional<Clock::time_point> verdict_at_;  // the coordinator has told by then what has ended the job; otherwise this has:
  std::optional<Error> presumed_;
  std::optional<Clock::time_point> kill_at_;  // whoever lives then
  bool has_killed_ = false;
  int kills_ = 0;
  bool is_parting_ = false;
};

}  // namespace

ClusterOutcome run_cluster_job(const ClusterJobOptions& options, ClusterJobListener listener) {
  return ClusterJob(options, std::move(listener)).run();
}

}  // namespace poseidon::launch
