// `poseidon serve`: one dedicated server of a job. Launchers start it; it needs no flags, data or net, since the coordinator tells it
// what is trained and which part of it is its own.
#include <cstdio>

#include "apps/poseidon/command.h"
#include "base/log.h"
#include "base/text.h"
#include "cluster/server.h"
#include "launch/sentence.h"

namespace poseidon::app {
namespace {

constexpr const char* kDescription =
    "One dedicated server of a job: sums the workers' gradients and trains nothing.\n"
    "\n"
    "`poseidon train` and `poseidon replay` start it where --servers asks for it. Another launcher starts it with\n"
    "  POSEIDON_ROLE=server       POSEIDON_RANK=number of this server, from 0\n"
    "  POSEIDON_SERVERS=how many  POSEIDON_WORLD_SIZE=number of workers\n"
    "  POSEIDON_COORDINATOR=host:port and POSEIDON_SECRET_FILE, as for workers.\n"
    "It ends when all workers have left.";

int complain(const Error& error) {
  std::fprintf(stderr, "poseidon serve: %s\n", error.message.c_str());
  return exit_code_of(error.code);
}

}  // namespace

int serve_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.name("poseidon serve");
  app.description(kDescription);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  const Result<std::optional<cluster::JobAddress>> job = cluster::job_from_environment();
  if (!job) return complain(job.error());
  if (!*job || !(*job)->is_server()) {
    return complain({ErrorCode::kInvalid, "there is no job to serve: it is started by a launcher, with POSEIDON_ROLE=server and what "
                                          "--help lists; for servers on this host give `poseidon train` --servers"});
  }
  const int number = static_cast<int>(index((*job)->rank)) - (*job)->workers;
  base::log::configure(base::concat("server ", number), base::log::Level::kInfo);
  const Status status = cluster::serve({.job = **job, .make_compute = [](runtime::Runtime&) { return std::make_unique<runtime::SimpleCompute>(); }});
  if (status) return kSuccess;
  base::log::error(status.error().message);
  launch::report_server_error(number, status.error());
  return exit_code_of(status.error().code);
}

}  // namespace poseidon::app
