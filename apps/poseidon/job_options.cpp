#include "apps/poseidon/job_options.h"

#include "apps/poseidon/job_files.h"
#include "base/quantity.h"
#include "base/text.h"

namespace poseidon::app {

void JobOptions::describe(CLI::App& app) {
  app.add_option("--workers", workers, "how many worker processes")->check(CLI::Range(1, 1024))->capture_default_str();
  serving.describe(app);
  add_lanes(app, lanes, pin_lanes);
  add_per_host(app, per_host);
  app.add_option("--staging", staging,
                 "memory of each server for gradients that wait for the others', e.g. 512MiB: near it workers hold pushes back")
      ->capture_default_str();
  app.add_flag("--tls", tls, "encrypt all links of the job with TLS 1.3, keyed by its secret");
}

Status JobOptions::check(bool on_other_hosts) {
  if (const Status status = serving.check(on_other_hosts); !status) return status;
  const Result<std::size_t> bytes = base::parse_bytes(staging);
  if (!bytes) return Error{ErrorCode::kInvalid, "--staging: " + bytes.error().message};
  staging_bytes_max = *bytes;
  const Result<plan::PerHost> wanted = plan::parse_per_host(per_host);
  if (!wanted) return Error{ErrorCode::kInvalid, "--per-host: " + wanted.error().message};
  group = *wanted;
  if (group != plan::PerHost::kOff && serving.serving.servers > 0) {
    return Error{ErrorCode::kInvalid,
                 "--per-host has the hosts' workers serve each other, so there is no place for --servers; give one of them"};
  }
  return {};
}

Result<launch::LocalJobOptions> JobOptions::local_job(const std::string& subcommand, const std::vector<std::string>& arguments,
                                                      const std::filesystem::path& run_folder) const {
  Result<std::vector<std::string>> command = own_command(subcommand, arguments);
  if (!command) return command.error();
  Result<std::vector<std::string>> server_command = own_command("serve", {});
  if (!server_command) return server_command.error();
  launch::LocalJobOptions job;
  job.workers = workers;
  job.servers = serving.serving.servers;
  job.command = std::move(*command);
  job.server_command = std::move(*server_command);
  job.environment["POSEIDON_STAGING"] = base::concat(staging_bytes_max, "B");
  job.environment["POSEIDON_LANES"] = std::to_string(lanes);
  job.run_folder = run_folder;
  job.tls = tls;
  job.coordinator.workers = workers;
  job.coordinator.servers = serving.serving.servers;
  job.coordinator.colocated = serving.serving.colocated;
  return job;
}

Result<std::optional<cluster::JobAddress>> JobOptions::own_job() const {
  Result<std::optional<cluster::JobAddress>> job = cluster::job_from_environment();
  if (job && *job) (*job)->tls |= tls;  // who asks for it never goes without
  return job;
}

}  // namespace poseidon::app
