#include "poseidon/local.h"

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "launch/local_job.h"
#include "plan/choose.h"
#include "plan/hosts.h"
#include "plan/lanes.h"

namespace poseidon {
namespace {

constexpr int kWorkersMax = 1024;  // processes on one host

// This program and its arguments, as the kernel knows them.
Result<std::vector<std::string>> own_command() {
  std::error_code failed;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return Error{ErrorCode::kSystem, "cannot find this program in /proc/self/exe: " + failed.message()};
  // Files of /proc say that they are empty, so this one is read until its end.
  std::ifstream words("/proc/self/cmdline", std::ios::binary);
  if (!words) return Error{ErrorCode::kSystem, "cannot find this program's arguments in /proc/self/cmdline"};
  std::vector<std::string> command;
  for (std::string word; std::getline(words, word, '\0');) command.push_back(word);
  // The first word is whatever the program was called by; a worker needs the file.
  command.resize(std::max<std::size_t>(command.size(), 1));
  command[0] = self.string();
  return command;
}

Result<std::string> make_run_folder() {
  const char* const temporary = std::getenv("TMPDIR");
  std::string path = base::concat(temporary != nullptr && *temporary != '\0' ? temporary : "/tmp", "/poseidon-run-XXXXXX");
  if (::mkdtemp(path.data()) == nullptr) {
    return Error{ErrorCode::kSystem, base::concat("cannot make a run folder, ", path, ": ", std::strerror(errno))};
  }
  return path;
}

Status check(const LocalOptions& options) {
  if (std::getenv("POSEIDON_RANK") != nullptr) {
    return Error{ErrorCode::kInvalid,
                 "this process is a worker itself (POSEIDON_RANK is set): ask find_job() before run_local()"};
  }
  if (options.workers < 1 || options.workers > kWorkersMax) {
    return Error{ErrorCode::kInvalid,
                 base::concat(options.workers, " workers are not possible, it must be from 1 to ", kWorkersMax)};
  }
  if (options.link_bytes_per_second && !(*options.link_bytes_per_second > 0)) {
    return Error{ErrorCode::kInvalid, base::concat("a link cannot have ", *options.link_bytes_per_second, " bytes per second")};
  }
  if (options.lanes < 1 || options.lanes > static_cast<int>(plan::kLanesMax)) {
    return Error{ErrorCode::kInvalid, base::concat(options.lanes, " lanes are not possible, it must be from 1 to ", plan::kLanesMax)};
  }
  if (options.wire && *options.wire != DType::kBFloat16 && *options.wire != DType::kFloat16) {
    return Error{ErrorCode::kInvalid, base::concat("gradients cannot travel as ", to_string(*options.wire),
                                                   ": it must be bfloat16 or float16, or nothing")};
  }
  const Result<plan::PerHost> per_host = plan::parse_per_host(options.per_host);
  if (!per_host) return Error{ErrorCode::kInvalid, "per_host: " + per_host.error().message};
  if (*per_host != plan::PerHost::kOff && !options.plan.empty()) {
    return Error{ErrorCode::kInvalid, "a plan to repeat has the hosts in it, so per_host has no say: give one of them"};
  }
  if (!options.run_folder.empty() && !std::filesystem::is_directory(options.run_folder)) {
    return Error{ErrorCode::kNotFound, base::concat("the run folder ", options.run_folder, " is not there")};
  }
  return {};
}

cluster::CoordinatorListener listener_of(const LocalOptions& options) {
  return {.on_wait = options.on_wait,
          .on_plan =
              [&options](const plan::Plan& plan, const std::vector<plan::LayerChoice>& choices, const plan::Speeds& speeds,
                         const Model&) {
                if (!options.on_plan) return;
                options.on_plan(plan::to_json(plan), choices.empty() ? "" : plan::choice_table(choices, plan::nodes_of(plan), speeds));
              },
          .on_start = {},
          .on_note =
              [&options](Rank from, const std::string& body) {
                if (options.on_note) options.on_note(static_cast<int>(index(from)), body);
              },
          .on_finish = {},
          .on_fail = {}};
}

}  // namespace

LocalEnd run_local(const LocalOptions& options) {
  if (const Status status = check(options); !status) return {.error = status.error(), .interrupted = {}, .run_folder = {}};
  launch::LocalJobOptions job{.workers = options.workers, .command = options.command, .environment = options.environment};
  job.coordinator.workers = options.workers;
  job.coordinator.link_bytes_per_second = options.link_bytes_per_second;
  job.coordinator.wire = options.wire;
  job.coordinator.per_host = plan::parse_per_host(options.per_host).value();
  job.tls = options.tls;
  // A program's own environment goes before its options, as everywhere in the contract.
  job.environment.emplace("POSEIDON_LANES", std::to_string(options.lanes));
  if (options.staging_bytes_max) job.environment.emplace("POSEIDON_STAGING", base::concat(*options.staging_bytes_max, "B"));
  if (options.plan.empty()) {
    Result<plan::SchemeRequest> schemes = plan::parse_scheme_request(options.schemes);
    if (!schemes) return {.error = schemes.error(), .interrupted = {}, .run_folder = {}};
    job.coordinator.schemes = std::move(*schemes);
  } else {
    job.coordinator.plan_json = options.plan;
  }
  if (job.command.empty()) {
    Result<std::vector<std::string>> command = own_command();
    if (!command) return {.error = command.error(), .interrupted = {}, .run_folder = {}};
    job.command = std::move(*command);
  }
  LocalEnd end{.error = {}, .interrupted = {}, .run_folder = options.run_folder};
  if (end.run_folder.empty()) {
    Result<std::string> made = make_run_folder();
    if (!made) return {.error = made.error(), .interrupted = {}, .run_folder = {}};
    end.run_folder = std::move(*made);
  }
  job.run_folder = std::filesystem::absolute(end.run_folder);

  const launch::JobOutcome outcome = launch::run_local_job(job, listener_of(options), [](const auto&) {});
  end.error = outcome.error;
  end.interrupted = outcome.interrupted;
  for (std::size_t rank = 0; rank < outcome.exits.size() && !end.error; ++rank) {
    const launch::Exit& exit = outcome.exits[rank];
    if (exit.signal == 0 && exit.code == 0) continue;
    end.error = Error{ErrorCode::kPeerLost,
                      base::concat("rank ", rank, " ended with ", exit.text(), " after the job was over; its log is ",
                                   (job.run_folder / base::concat("worker-", rank, ".log")).string())};
  }
  if (options.run_folder.empty() && !end.error) {
    std::error_code ignored;  // a folder that cannot be removed is no reason to fail a job that went well
    std::filesystem::remove_all(end.run_folder, ignored);
    end.run_folder.clear();
  }
  return end;
}

}  // namespace poseidon
