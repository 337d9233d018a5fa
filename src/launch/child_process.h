// One child process that never outlives us.
//
// The kernel sends it a signal when the thread that started it dies (PR_SET_PDEATHSIG), so start children from the main thread.
// Signals that a terminal, timeout(1) and service managers send to a whole group of processes do not end it: a job must stop together,
// when its launcher says so.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::launch {

struct ChildOptions {
  std::vector<std::string> command;                // the program (a path, or a name to find in PATH) and its arguments
  std::map<std::string, std::string> environment;  // added to ours
  std::filesystem::path log;                       // takes standard output and error, where these are not given
  std::filesystem::path folder;                    // to start in; empty: ours
  // Descriptors of ours that become its standard ones; -1: nothing to read, and the log.
  int input = -1;
  int output = -1;
  int error = -1;
  // How groups' signals are kept from it. False: it ignores SIGINT, SIGTERM and SIGHUP, as do its own children. True: it leads a session
  // of its own, in which these signals do what they always do.
  bool own_session = false;
  int death_signal = 9;  // SIGKILL
};

// How a process ended.
struct Exit {
  int code = 0;    // valid where signal is 0
  int signal = 0;  // that killed it
  // "exit code 3", "signal 9 (Killed)"
  std::string text() const;
};

class ChildProcess {
 public:
  // kSystem when the program cannot be run, the folder not be entered or the log not be written; then there is no child.
  static Result<ChildProcess> start(const ChildOptions& options);

  pid_t pid() const { return pid_; }
  void kill(int signal) const;
  // User and system time of all its threads so far; nothing once it has ended and been collected.
  std::optional<double> cpu_seconds() const;
  static Exit exit_of(int wait_status);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

}  // namespace poseidon::launch
