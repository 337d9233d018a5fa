#include "engines/caffe/data/child_program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "base/text.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

extern char** environ;

namespace poseidon::caffe {
namespace {

using base::concat;
namespace fs = std::filesystem;

// What a child may have ready: many small records or a few large ones. The kernel may give less.
constexpr int kPipeBytes = 1 << 20;

bool is_executable(const fs::path& path) {
  std::error_code failure;
  return fs::is_regular_file(path, failure) && ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw SystemError(concat("cannot make a pipe: ", std::strerror(errno)));
  Pipe pipe{Descriptor(ends[0]), Descriptor(ends[1])};
  for (Descriptor* end : {&pipe.reading, &pipe.writing}) {
    if (end->get() > 2) continue;
    Descriptor higher(::fcntl(end->get(), F_DUPFD_CLOEXEC, 3));
    if (higher.get() < 0) throw SystemError(concat("cannot make a pipe: ", std::strerror(errno)));
    *end = std::move(higher);
  }
  ::fcntl(pipe.writing.get(), F_SETPIPE_SZ, kPipeBytes);
  return pipe;
}

namespace {

void block_polite_signals(posix_spawnattr_t& attributes) {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) sigaddset(&mask, number);
  posix_spawnattr_setsigmask(&attributes, &mask);
  // What the trainer ignores would be ignored in the child as well.
  sigset_t defaults;
  sigemptyset(&defaults);
  for (const int number : {SIGPIPE, SIGCHLD, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) sigaddset(&defaults, number);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

}  // namespace

pid_t spawn(const fs::path& program, std::vector<std::string> arguments, int input, int output) {
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (input >= 0) {
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  }
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  block_polite_signals(attributes);
  pid_t child = -1;
  const int code = ::posix_spawn(&child, program.c_str(), &actions, &attributes, raw.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) throw SystemError(concat("cannot start ", program.string(), ": ", std::strerror(code)));
  return child;
}

std::string signal_name(int number) {
  switch (number) {
    case SIGBUS:
      return "SIGBUS";
    case SIGSEGV:
      return "SIGSEGV";
    case SIGABRT:
      return "SIGABRT";
    case SIGFPE:
      return "SIGFPE";
    case SIGILL:
      return "SIGILL";
    case SIGKILL:
      return "SIGKILL";
    default:
      return concat("signal ", number);
  }
}

bool is_death_of_damage(int signal_number) {
  for (const int number : {SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGILL}) {
    if (signal_number == number) return true;
  }
  return false;
}

bool wait_for_death(pid_t child, std::chrono::milliseconds wait_max) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline = Clock::now() + wait_max;
  const Descriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (handle.get() < 0) {  // Linux before 5.3: our child does not close its pipe and live on, so this ends
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0;
  }
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd waiting{handle.get(), POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30)));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

int kill_and_collect(pid_t child) {
  // Does nothing to a child that has died already: until it is collected its id is not given away.
  ::kill(child, SIGKILL);
  int status = 0;
  pid_t collected = -1;
  do {
    collected = ::waitpid(child, &status, 0);
  } while (collected < 0 && errno == EINTR);
  return collected < 0 ? 0 : status;
}

fs::path data_program() {
  constexpr const char* kVariable = "POSEIDON_DATA_PROGRAM";
  if (const char* given = std::getenv(kVariable); given != nullptr && *given != '\0') {
    if (!is_executable(given)) throw ConfigError(concat(kVariable, "=", given, " is not a program"));
    return given;
  }
  std::error_code failure;
  const fs::path folder = fs::read_symlink("/proc/self/exe", failure).parent_path();
  for (const fs::path& candidate : {folder / "poseidon-data", folder.parent_path() / "bin" / "poseidon-data"}) {
    if (is_executable(candidate)) return candidate;
  }
  throw ConfigError(concat("cannot find the program poseidon-data, which reads data bases: it is not in ",
                           folder.string(), "; build it (target poseidon-data), or set ", kVariable,
                           " to where it is"));
}

}  // namespace poseidon::caffe
