// `poseidon agent`: the launcher's hand on a host. People do not call it.
#include <unistd.h>

#include <cstdio>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "launch/agent.h"

namespace poseidon::app {

int agent_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.name("poseidon agent");
  app.description("Starts processes of a job on this host, for a launcher: `poseidon run` starts it, here or through ssh, and speaks to it\n"
                  "over its standard input. It ends, with all that it has started, when that input does.");
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  if (::isatty(STDIN_FILENO) == 1) {
    std::fputs("poseidon agent: it is `poseidon run` that starts this; try `poseidon run --help`\n", stderr);
    return kWrongUsage;
  }
  const Status status = launch::run_agent({.version = POSEIDON_VERSION, .python = python_folders()});
  if (status) return kSuccess;
  std::fprintf(stderr, "poseidon agent: %s\n", status.error().message.c_str());
  return exit_code_of(status.error().code);
}

}  // namespace poseidon::app
