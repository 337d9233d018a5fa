#include "launch/agent.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <thread>

#include "base/hex.h"
#include "base/text.h"
#include "launch/agent_messages.h"
#include "launch/descriptor.h"
#include "launch/secret_file.h"
#include "launch/sentence.h"
#include "launch/signals.h"

namespace poseidon::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kChunkBytes = 64 * 1024;
constexpr auto kConnectMax = std::chrono::seconds(2);  // to one address of the coordinator
constexpr auto kEndMax = std::chrono::seconds(5);      // for killed processes to be gone
constexpr auto kEndStep = std::chrono::milliseconds(2);

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// One that nobody listens on now.
int free_port() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  if (!socket.is_open() || ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return 0;
  }
  return ntohs(address.sin_port);
}

// Whether somebody listens there; otherwise why not.
Status try_address(const Address& address) {
  const auto failed = [&](const std::string& why) {
    return Error{ErrorCode::kTimeout, base::concat(address.host, ":", address.port, " (", why, ")")};
  };
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found); code != 0) {
    return failed(::gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  std::string why = "it has no address";
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    const Descriptor socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket.is_open()) continue;
    int error = ::connect(socket.get(), one->ai_addr, one->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      pollfd waiting{socket.get(), POLLOUT, 0};
      socklen_t size = sizeof error;
      if (::poll(&waiting, 1, static_cast<int>(std::chrono::milliseconds(kConnectMax).count())) == 0) {
        error = ETIMEDOUT;
      } else {
        ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      }
    }
    if (error == 0) return {};
    why = std::strerror(error);
  }
  return failed(why);
}

// The script that a Python command runs; nothing for other commands, and for `python -m module` and the like.
std::optional<std::string> script_of(const std::vector<std::string>& command) {
  if (!std::filesystem::path(command.front()).filename().string().starts_with("python")) return std::nullopt;
  for (std::size_t i = 1; i < command.size(); ++i) {
    const std::string& word = command[i];
    if (word == "-W" || word == "-X") {
      ++i;
    } else if (word.starts_with("-")) {
      if (word.find_first_of("mc") != std::string::npos || word == "-") return std::nullopt;
    } else {
      return word;
    }
  }
  return std::nullopt;
}

// The processes whose parent is this one: children, and what dead children have left.
std::vector<pid_t> children() {
  std::vector<pid_t> found;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", failed)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "stat");
    std::string text;
    std::getline(file, text);
    // "pid (name) state parent ...", where the name may hold anything.
    const std::size_t end = text.rfind(')');
    if (end == std::string::npos || text.size() < end + 5) continue;
    if (std::atoi(text.c_str() + end + 4) == ::getpid()) found.push_back(std::atoi(name.c_str()));
  }
  return found;
}

// A folder for the sentences that processes leave; gone with the agent.
class SentenceFolder {
 public:
  static Result<std::unique_ptr<SentenceFolder>> create() {
    std::string path = (std::filesystem::temp_directory_path() / "poseidon-agent-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) return Error{ErrorCode::kSystem, base::concat("cannot make the folder ", path, ": ", std::strerror(errno))};
    return std::unique_ptr<SentenceFolder>(new SentenceFolder(path));
  }
  ~SentenceFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  SentenceFolder(const SentenceFolder&) = delete;
  SentenceFolder& operator=(const SentenceFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  explicit SentenceFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

class Agent {
 public:
  explicit Agent(const AgentOptions& options) : options_(options) {}

  Status run() {
    if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return Error{ErrorCode::kSystem, base::concat("cannot adopt processes: ", std::strerror(errno))};
    std::signal(SIGPIPE, SIG_IGN);
    write(std::string(kGreeting));
    send(Speech::kHello, encode(AgentHello{.version = options_.version,
                                           .host = host_name(),
                                           .cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency())),
                                           .pid = ::getpid(),
                                           .free_port = free_port()}));
    while (!ends_) {
      for (int signal = signals_.next(); signal != 0; signal = signals_.next()) ends_ |= signal != SIGCHLD;
      reap();
      if (!ends_) wait();
    }
    end_all();
    return {};
  }

 private:
  struct Node {
    int number = 0;
    ChildProcess process;
    Descriptor output;
    Descriptor error;
    bool has_ended = false;
  };

  // Until something happens; and sees to what does.
  void wait() {
    std::vector<pollfd> fds = {{options_.input, POLLIN, 0}, {signals_.fd(), POLLIN, 0}};
    for (const Node& node : nodes_) {
      for (const Descriptor* stream : {&node.output, &node.error}) fds.push_back({stream->get(), POLLIN, 0});  // -1 is passed over
    }
    if (::poll(fds.data(), fds.size(), -1) < 0) return;
    if (fds[0].revents != 0) read_input();
    for (std::size_t i = 0; i < nodes_.size() && 2 * i + 3 < fds.size(); ++i) {
      if (fds[2 * i + 2].revents != 0) forward(nodes_[i], false);
      if (fds[2 * i + 3].revents != 0) forward(nodes_[i], true);
    }
  }

  void read_input() {
    std::array<char, kChunkBytes> chunk;
    const ssize_t n = ::read(options_.input, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) {
      ends_ = true;
      return;
    }
    reader_.feed({chunk.data(), static_cast<std::size_t>(n)});
    while (!ends_) {
      const Result<std::optional<AgentMessage>> message = reader_.next();
      if (!message) return refuse(message.error());
      if (!*message) return;
      on_message(**message);
    }
  }

  void on_message(const AgentMessage& message) {
    if (message.kind == Speech::kStart) {
      const Result<AgentStart> start = decode_start(message.body);
      if (!start) return refuse(start.error());
      if (const Status status = start_all(*start); !status) refuse(status.error());
    } else if (message.kind == Speech::kSignal) {
      const Result<int> signal = decode_signal(message.body);
      if (!signal) return refuse(signal.error());
      for (const Node& node : nodes_) {
        if (!node.has_ended) node.process.kill(*signal);
      }
    } else if (message.kind == Speech::kKill) {
      end_all();
    } else {
      refuse({ErrorCode::kCorruptFrame, "a launcher does not say that to an agent"});
    }
  }

  // Nothing runs here, and nothing will.
  void refuse(const Error& why) {
    end_all();
    send(Speech::kRefused, encode(why));
    ends_ = true;
  }

  Status start_all(const AgentStart& start) {
    if (sentences_) return Error{ErrorCode::kInvalid, "the agent has been told twice to start"};
    Result<std::unique_ptr<SentenceFolder>> sentences = SentenceFolder::create();
    if (!sentences) return sentences.error();
    sentences_ = std::move(*sentences);
    const std::optional<std::string> bytes = base::from_hex(start.secret);
    if (!bytes) return Error{ErrorCode::kCorruptFrame, "the job's secret is not written in hexadecimal digits"};
    const auto* const begin = reinterpret_cast<const std::byte*>(bytes->data());
    Result<SecretFile> secret = SecretFile::create(std::vector<std::byte>(begin, begin + bytes->size()));
    if (!secret) return secret.error();
    secret_ = std::make_unique<SecretFile>(std::move(*secret));
    workers_ = start.workers;
    AgentStarted started;
    const Result<Address> coordinator = choose(start.coordinators);
    if (!coordinator) return coordinator.error();
    started.coordinator = *coordinator;
    std::map<std::string, std::string> environment = start.environment;
    environment["POSEIDON_COORDINATOR"] = base::concat(coordinator->host, ":", coordinator->port);
    environment["POSEIDON_SECRET_FILE"] = secret_->path();
    environment["POSEIDON_RUN_FOLDER"] = sentences_->path().string();
    if (start.python) attach_to_python(environment);
    for (const NodeStart& node : start.nodes) {
      if (const Status status = start_node(node, start.folder, environment); !status) return status;
      started.pids[node.number] = nodes_.back().process.pid();
    }
    send(Speech::kStarted, encode(started));
    return {};
  }

  Result<Address> choose(const std::vector<Address>& coordinators) const {
    std::vector<std::string> tried;
    for (const Address& address : coordinators) {
      const Status status = try_address(address);
      if (status) return address;
      tried.push_back(status.error().message);
    }
    return Error{ErrorCode::kTimeout, base::concat("it cannot reach the launcher at ", base::join_words(tried),
                                                   "; is there a firewall between them? --network says which network to use")};
  }

  void attach_to_python(std::map<std::string, std::string>& environment) const {
    const auto given = environment.find("PYTHONPATH");
    const char* const inherited = std::getenv("PYTHONPATH");
    const std::string before = given != environment.end() ? given->second : inherited != nullptr ? inherited : "";
    std::string path;
    for (const std::filesystem::path& folder : options_.python) path += folder.string() + ":";
    environment["PYTHONPATH"] = before.empty() ? path.substr(0, path.size() - 1) : path + before;
  }

  Status start_node(const NodeStart& node, const std::filesystem::path& folder, std::map<std::string, std::string> environment) {
    if (const std::optional<std::string> script = script_of(node.command); script && !std::filesystem::exists(folder / *script)) {
      return Error{ErrorCode::kNotFound, base::concat("there is no ", *script, " in ", folder.string(),
                                                      "; the script and its data must be at the same place on every host")};
    }
    for (const auto& [name, value] : node.environment) environment[name] = value;
    std::array<std::array<int, 2>, 2> pipes{};
    for (auto& pipe : pipes) {
      if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return Error{ErrorCode::kSystem, base::concat("cannot make a pipe: ", std::strerror(errno))};
    }
    const Descriptor output(pipes[0][1]), error(pipes[1][1]);
    Descriptor read_output(pipes[0][0]), read_error(pipes[1][0]);
    for (const Descriptor* end : {&read_output, &read_error}) ::fcntl(end->get(), F_SETFL, O_NONBLOCK);
    Result<ChildProcess> process = ChildProcess::start({.command = node.command,
                                                        .environment = environment,
                                                        .log = {},
                                                        .folder = folder,
                                                        .input = -1,
                                                        .output = output.get(),
                                                        .error = error.get(),
                                                        .own_session = true});
    if (!process) return process.error();
    nodes_.push_back({node.number, *process, std::move(read_output), std::move(read_error), false});
    return {};
  }

  // What one of a process's streams has now.
  void forward(Node& node, bool is_error) {
    Descriptor& stream = is_error ? node.error : node.output;
    while (stream.is_open()) {
      std::string bytes(kChunkBytes, '\0');
      const ssize_t n = ::read(stream.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) return stream.close();
      bytes.resize(static_cast<std::size_t>(n));
      send(Speech::kOutput, encode(NodeOutput{node.number, is_error, std::move(bytes)}));
    }
  }

  // Collects what has ended, orphans too. False: there are no children.
  bool reap() {
    while (true) {
      int status = 0;
      rusage usage{};
      const pid_t pid = ::wait4(-1, &status, WNOHANG, &usage);
      if (pid < 0) return errno == EINTR;
      if (pid == 0) return true;
      const auto node = std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& one) { return one.process.pid() == pid && !one.has_ended; });
      if (node != nodes_.end()) on_exit(*node, ChildProcess::exit_of(status), usage);
    }
  }

  void on_exit(Node& node, Exit exit, const rusage& usage) {
    node.has_ended = true;
    forward(node, false);
    forward(node, true);
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
    const bool is_server = node.number >= workers_;
    const std::string name = process_name(is_server ? node.number - workers_ : node.number, is_server);
    send(Speech::kExit, encode(NodeExit{.number = node.number,
                                        .exit = exit,
                                        .cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime),
                                        .said = take_sentence(sentences_->path(), name)}));
  }

  // Kills until nobody is left: the children of those who are killed become ours.
  void end_all() {
    const Clock::time_point deadline = Clock::now() + kEndMax;
    while (reap() && Clock::now() < deadline) {
      for (const pid_t pid : children()) ::kill(pid, SIGKILL);
      std::this_thread::sleep_for(kEndStep);
    }
  }

  void send(Speech kind, std::string body) { write(to_bytes({kind, std::move(body)})); }

  // A launcher that has gone is noticed here, or at the end of the input.
  void write(const std::string& bytes) {
    std::size_t done = 0;
    while (done < bytes.size() && !is_gone_) {
      const ssize_t n = ::write(options_.output, bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        is_gone_ = ends_ = true;
      } else {
        done += static_cast<std::size_t>(n);
      }
    }
  }

  const AgentOptions& options_;
  SignalDescriptor signals_{SIGINT, SIGTERM, SIGHUP, SIGCHLD};
  AgentMessageReader reader_{true};
  std::unique_ptr<SentenceFolder> sentences_;
  std::unique_ptr<SecretFile> secret_;
  int workers_ = 1;
  std::vector<Node> nodes_;
  bool ends_ = false;
  bool is_gone_ = false;  // the launcher
};

}  // namespace

Status run_agent(const AgentOptions& options) { return Agent(options).run(); }

}  // namespace poseidon::launch
