#include "apps/poseidon/host_options.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <set>

#include "apps/poseidon/job_files.h"
#include "base/file.h"
#include "base/text.h"
#include "launch/cluster_file.h"
#include "launch/hosts.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kHostfileBytesMax = 16 << 20;

Error wrong(const std::string& what) { return {ErrorCode::kInvalid, what}; }

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + launch::shell_quoted(word);
  return line;
}

}  // namespace

void HostOptions::describe(CLI::App& app) {
  CLI::Option* const list = app.add_option("-H,--hosts", hosts, "host:slots,host:slots: how many workers start where");
  CLI::Option* const file = app.add_option("--hostfile", hostfile, "the same from a file, in Open MPI's, MPICH's or the parameter server's style");
  app.add_option("-c,--cluster", cluster_file, "the published edition's JSON: worker_nodes, server_nodes, username, pem_file, virtualenv")
      ->excludes(list)
      ->excludes(file);
  list->excludes(file);
  app.add_option("--ssh-args", ssh_flags, "a flag for ssh, such as --ssh-args=-p2222; may be given several times")->take_all()->allow_extra_args(false);
  app.add_option("--ssh", ssh, "the program that reaches other hosts, called as ssh is")->capture_default_str();
  app.add_option("--remote-program", program, "poseidon on the other hosts; if not given, at the same path as here");
  app.add_option("--interface", interface, "the network interface of this host at which the others reach it");
  app.add_option("--network", network, "the network that the job uses, as 10.0.0.0/8");
}

std::vector<std::string> HostOptions::as_flags() const {
  std::vector<std::string> flags = {"--ssh=" + ssh};
  const auto add = [&](const char* flag, const std::optional<std::string>& value) {
    if (value) flags.push_back(base::concat(flag, "=", *value));
  };
  add("--hosts", hosts);
  add("--hostfile", hostfile);
  add("--cluster", cluster_file);
  add("--remote-program", program);
  add("--interface", interface);
  add("--network", network);
  for (const std::string& flag : ssh_flags) flags.push_back("--ssh-args=" + flag);
  return flags;
}

Status HostOptions::place(launch::ClusterJobOptions& job, std::optional<int> workers) const {
  Result<launch::Placement> placement = launch::Placement{};
  if (hosts) {
    placement = launch::parse_host_list(*hosts);
    if (!placement) return wrong("-H: " + placement.error().message);
  } else if (hostfile) {
    const Result<std::string> text = base::read_file(*hostfile, kHostfileBytesMax);
    if (!text) return wrong("--hostfile: " + text.error().message);
    placement = launch::parse_hostfile(*text, *hostfile);
    if (!placement) return placement.error();
  } else if (cluster_file) {
    const Result<std::string> text = base::read_file(*cluster_file, kHostfileBytesMax);
    if (!text) return wrong("-c: " + text.error().message);
    const Result<launch::ClusterFile> cluster = launch::parse_cluster_file(*text, *cluster_file);
    if (!cluster) return cluster.error();
    placement = cluster->workers;
    job.reach.user = cluster->username;
    job.reach.key = cluster->pem_file;
    job.reach.virtualenv = cluster->virtualenv;
    // A node that trains serves beside it.
    const std::set<std::string> training(cluster->workers.begin(), cluster->workers.end());
    std::copy_if(cluster->servers.begin(), cluster->servers.end(), std::back_inserter(job.server_hosts),
                 [&](const std::string& host) { return !training.contains(host); });
    job.coordinator.colocated = job.server_hosts.size() < cluster->servers.size() || cluster->servers.empty();
  } else {
    placement = launch::Placement(static_cast<std::size_t>(workers.value_or(1)), "localhost");
  }
  if (workers && placement->size() < static_cast<std::size_t>(*workers)) {
    return wrong(base::concat("-n ", *workers, ": the hosts given have room for ", placement->size(), " workers"));
  }
  if (workers) placement->resize(static_cast<std::size_t>(*workers));
  job.hosts = std::move(*placement);
  return {};
}

// Those of this host that --interface and --network let pass.
Status HostOptions::find_addresses(launch::ClusterJobOptions& job) const {
  std::optional<launch::Network> wanted;
  if (network) {
    Result<launch::Network> parsed = launch::Network::parse(*network);
    if (!parsed) return wrong("--network: " + parsed.error().message);
    wanted = std::move(*parsed);
  }
  std::vector<std::string> known;
  for (const launch::OwnAddress& own : launch::own_addresses()) {
    known.push_back(base::concat(own.address, " (", own.interface, ")"));
    if (interface && own.interface != *interface) continue;
    if (wanted && !wanted->contains(own.address)) continue;
    job.addresses.push_back(own.address);
  }
  if (job.addresses.empty() && (interface || network)) {
    return wrong(base::concat("this host has no address ", interface ? "on interface " + *interface : "", interface && network ? " " : "",
                              network ? "in network " + *network : "", "; it has ", known.empty() ? "none" : base::join_words(known)));
  }
  return {};
}

Status HostOptions::prepare(launch::ClusterJobOptions& job, std::optional<int> workers) const {
  if (const Status status = place(job, workers); !status) return status;
  if (const Status status = find_addresses(job); !status) return status;
  Result<std::vector<std::string>> agent = own_command("agent", {});
  if (!agent) return agent.error();
  job.reach.program = program.value_or(agent->front());
  job.server_command = {job.reach.program, "serve"};
  job.own_agent = std::move(*agent);
  if (!job.reach.virtualenv.empty()) {
    job.own_agent = {"/bin/sh", "-c", base::concat(". ", launch::shell_quoted(job.reach.virtualenv + "/bin/activate"), " && exec ",
                                                   launch::shell_quoted(job.own_agent.front()), " agent")};
  }
  job.reach.ssh = {ssh};
  job.reach.ssh.insert(job.reach.ssh.end(), ssh_flags.begin(), ssh_flags.end());
  job.folder = std::filesystem::current_path().string();
  job.version = POSEIDON_VERSION;
  return {};
}

void print_placement(const launch::ClusterJobOptions& job) {
  for (std::size_t rank = 0; rank < job.hosts.size(); ++rank) {
    const std::string& host = job.hosts[rank];
    std::printf("rank %zu on %s%s: %s\n", rank, host.c_str(), launch::is_this_host(host) ? " (this host)" : "",
                joined(job.commands[job.commands.size() == 1 ? 0 : rank]).c_str());
  }
  for (std::size_t server = 0; server < job.server_hosts.size(); ++server) {
    std::printf("server %zu on %s: %s\n", server, job.server_hosts[server].c_str(), joined(job.server_command).c_str());
  }
  std::printf("folder on every host: %s\n", job.folder.c_str());
  const auto other = std::find_if(job.hosts.begin(), job.hosts.end(), [](const std::string& host) { return !launch::is_this_host(host); });
  if (other == job.hosts.end()) return;
  std::printf("other hosts are reached by: %s\n", joined(launch::agent_command(*other, job.reach)).c_str());
  std::printf("they reach this one at: %s\n", job.addresses.empty() ? "no address" : base::join_words(job.addresses).c_str());
}

}  // namespace poseidon::app
