#include "launch/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>

#include "base/text.h"

extern char** environ;

namespace poseidon::launch {
namespace {

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& s : strings) list.push_back(s.data());
  list.push_back(nullptr);
  return list;
}

// What the child tells through the pipe when it cannot become the program.
struct Failure {
  int error = 0;
  bool is_folder = false;
};

// What become() needs, made before fork().
struct Becoming {
  char** arguments;
  char** environment;
  const char* folder;  // null: stay
  int input;           // -1: /dev/null
  int output;
  int error;
  int report;
  pid_t parent;
  bool own_session;
  int death_signal;
};

// Everything between fork() and exec() must be async-signal-safe: another thread may hold malloc's lock. Reports errno
// through the pipe and ends on failure; the pipe closes by itself when exec() succeeds.
[[noreturn]] void become(const Becoming& what) {
  if (what.own_session) ::setsid();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, what.own_session ? SIG_DFL : SIG_IGN);
  for (const int signal : {SIGPIPE, SIGCHLD}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_PDEATHSIG, what.death_signal);
  if (::getppid() != what.parent) ::_exit(127);  // it died before it could be watched
  Failure failure;
  if (what.folder != nullptr && ::chdir(what.folder) != 0) {
    failure = {errno, true};
  } else {
    const int input = what.input >= 0 ? what.input : ::open("/dev/null", O_RDONLY);
    if (input >= 0 && ::dup2(input, STDIN_FILENO) >= 0 && ::dup2(what.output, STDOUT_FILENO) >= 0 && ::dup2(what.error, STDERR_FILENO) >= 0) {
      ::execve(what.arguments[0], what.arguments, what.environment);
    }
    failure.error = errno;
  }
  [[maybe_unused]] const ssize_t written = ::write(what.report, &failure, sizeof failure);
  ::_exit(127);
}

}  // namespace

std::string Exit::text() const {
  return signal != 0 ? base::concat("signal ", signal, " (", ::strsignal(signal), ")") : base::concat("exit code ", code);
}

namespace {

// exec() does this itself only in variants that a fork of a threaded program must not call.
std::string find_program(const std::string& name, const std::map<std::string, std::string>& environment) {
  const auto own = environment.find("PATH");
  const char* const path = own != environment.end() ? own->second.c_str() : std::getenv("PATH");
  if (name.find('/') != std::string::npos || path == nullptr) return name;
  std::stringstream folders{std::string(path)};
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = base::concat(folder.empty() ? "." : folder, "/", name);
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return name;
}

}  // namespace

Result<ChildProcess> ChildProcess::start(const ChildOptions& options) {
  const auto failed = [&](const std::string& what) {
    return Error{ErrorCode::kSystem, base::concat("cannot ", what, ": ", std::strerror(errno))};
  };
  std::vector<std::string> arguments = options.command;
  arguments.front() = find_program(arguments.front(), options.environment);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!options.environment.contains(text.substr(0, text.find('=')))) environment.push_back(text);
  }
  for (const auto& [name, value] : options.environment) environment.push_back(name + "=" + value);
  std::vector<char*> argument_list = pointers(arguments);
  std::vector<char*> environment_list = pointers(environment);

  const bool needs_log = options.output < 0 || options.error < 0;
  const int log = needs_log ? ::open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
  if (needs_log && log < 0) return failed(base::concat("write the log ", options.log.string()));
  const auto close_log = [log] {
    if (log >= 0) ::close(log);
  };
  int report[2] = {-1, -1};
  if (::pipe2(report, O_CLOEXEC) != 0) {
    close_log();
    return failed("make a pipe");
  }
  const Becoming becoming{.arguments = argument_list.data(),
                          .environment = environment_list.data(),
                          .folder = options.folder.empty() ? nullptr : options.folder.c_str(),
                          .input = options.input,
                          .output = options.output < 0 ? log : options.output,
                          .error = options.error < 0 ? log : options.error,
                          .report = report[1],
                          .parent = ::getpid(),
                          .own_session = options.own_session,
                          .death_signal = options.death_signal};
  const pid_t pid = ::fork();
  if (pid == 0) become(becoming);
  const int fork_error = errno;
  close_log();
  ::close(report[1]);
  Failure failure;
  const ssize_t n = pid > 0 ? ::read(report[0], &failure, sizeof failure) : 0;
  ::close(report[0]);
  if (pid < 0) {
    errno = fork_error;
    return failed("start a process");
  }
  if (n == sizeof failure) {
    ::waitpid(pid, nullptr, 0);
    errno = failure.error;
    return failed(failure.is_folder ? base::concat("enter the folder ", options.folder.string()) : base::concat("run ", options.command.front()));
  }
  return ChildProcess(pid);
}

void ChildProcess::kill(int signal) const { ::kill(pid_, signal); }

std::optional<double> ChildProcess::cpu_seconds() const {
  clockid_t clock{};
  timespec time{};
  if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return std::nullopt;
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Exit ChildProcess::exit_of(int wait_status) {
  if (WIFSIGNALED(wait_status)) return {.code = 0, .signal = WTERMSIG(wait_status)};
  return {.code = WEXITSTATUS(wait_status), .signal = 0};
}

}  // namespace poseidon::launch
