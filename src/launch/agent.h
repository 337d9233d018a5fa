// The launcher's hand on a host: starts the processes of a job that belong there, forwards what they print, and leaves none behind.
//
// A launcher starts it, on its own host directly and elsewhere through ssh, and speaks to it as launch/agent_messages.h says. When its
// input ends, the launcher has gone, in whatever way: all processes are killed, those too that they have started themselves, and the
// agent ends.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::launch {

struct AgentOptions {
  std::string version;           // of this program
  std::vector<std::filesystem::path> python;  // folders that Python is to look into before others: the import hook's, and the package's
  int input = 0;
  int output = 1;
};

// Returns when the job is over here. Call it from the main thread of a process that has no other. The error is for this process's
// standard error: it could not even begin.
Status run_agent(const AgentOptions& options);

}  // namespace poseidon::launch
