#include "apps/poseidon/run_record.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "apps/poseidon/job_files.h"
#include "apps/poseidon/run_files.h"
#include "base/file.h"
#include "base/text.h"
#include "trace/timeline.h"

namespace poseidon::app {
namespace {

using nlohmann::json;

std::string iso_time(std::chrono::system_clock::time_point when) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(when);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

}  // namespace

RunRecord::RunRecord(std::filesystem::path folder, const launch::ClusterJobOptions& job, std::string schemes)
    : folder_(std::move(folder)), job_(job), schemes_(std::move(schemes)) {
  // A disk that is full now is told of when the logs are written.
  static_cast<void>(write(nullptr, 0));
}

void RunRecord::on_host(const std::string& host, const launch::AgentHello& hello) {
  const std::lock_guard lock(mutex_);
  hosts_[host] = {hello.host, hello.cores};
}

void RunRecord::on_links(const std::vector<cluster::MeasuredLink>& links) {
  const std::lock_guard lock(mutex_);
  links_ = links;
}

void RunRecord::on_plan(const plan::Plan& plan) {
  const std::lock_guard lock(mutex_);
  plans_ = {{0, plan}};
  static_cast<void>(write_plans());
}

void RunRecord::on_change(const cluster::PlanChange& change) {
  const std::lock_guard lock(mutex_);
  plans_.push_back({change.from, change.plan});
  static_cast<void>(write_plans());
}

void RunRecord::on_note(Rank from, const std::string& body) {
  const nlohmann::ordered_json note = nlohmann::ordered_json::parse(body, nullptr, false);
  const std::lock_guard lock(mutex_);
  if (note.is_object() && note.contains("metrics") && note["metrics"].is_object()) {
    if (!metrics_.is_open()) metrics_.open(folder_ / "metrics.jsonl", std::ios::app);
    nlohmann::ordered_json line = {{"rank", index(from)}};
    line.update(note["metrics"]);
    metrics_ << line.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
    return;
  }
  if (note.is_object() && note.contains("timeline") && note["timeline"].is_string()) {
    // The first replaces what a run that was cut off may have left in this folder.
    const bool is_first = timelines_.insert(from).second;
    std::ofstream(timeline_part(folder_, index(from)), is_first ? std::ios::trunc : std::ios::app) << note["timeline"].get<std::string>();
    return;
  }
  notes_[from] = body;
}

Status RunRecord::write_plans() { return base::write_file_atomically(folder_ / "plan.json", plan::to_json(plans_), base::Flush::kToSystem); }

Status RunRecord::finish(const launch::ClusterOutcome& outcome, int exit_code) {
  const std::lock_guard lock(mutex_);
  if (!timelines_.empty()) {
    std::vector<std::filesystem::path> parts;
    for (int rank = 0; rank < static_cast<int>(job_.hosts.size()); ++rank) parts.push_back(timeline_part(folder_, rank));
    if (const Status status = trace::merge_timelines(parts, folder_ / "timeline.json"); !status) return status;
  }
  return write(&outcome, exit_code);
}

Status RunRecord::write(const launch::ClusterOutcome* outcome, int exit_code) {
  json record = {{"poseidon", job_.version}, {"folder", job_.folder}, {"began", iso_time(begin_)}, {"scheme", schemes_}, {"tls", job_.tls}};
  record["commands"] = job_.commands;
  record["environment"] = job_.environment;
  record["hosts"] = json::array();
  for (const auto& [host, about] : hosts_) record["hosts"].push_back({{"host", host}, {"name", about.name}, {"cores", about.cores}});
  record["links"] = json::array();
  for (const cluster::MeasuredLink& link : links_) {
    record["links"].push_back({{"from", index(link.from)}, {"to", index(link.to)}, {"bytes_per_second", link.bytes_per_second},
                               {"latency_seconds", link.latency_seconds}});
  }
  record["processes"] = json::array();
  const int workers = static_cast<int>(job_.hosts.size());
  const auto count = job_.hosts.size() + job_.server_hosts.size();
  for (std::size_t number = 0; number < count; ++number) {
    const bool is_worker = number < job_.hosts.size();
    json process = {{"host", is_worker ? job_.hosts[number] : job_.server_hosts[number - job_.hosts.size()]},
                    {is_worker ? "rank" : "server", is_worker ? number : number - job_.hosts.size()},
                    {"log", log_name(static_cast<int>(number), workers)}};
    if (const auto note = notes_.find(Rank{static_cast<std::int32_t>(number)}); note != notes_.end()) {
      const json about = json::parse(note->second, nullptr, false);
      process["about"] = about.is_discarded() ? json(note->second) : about;
    }
    if (outcome != nullptr) {
      const launch::JobProcess& ended = outcome->processes[number];
      process["pid"] = ended.pid;
      process["ended"] = ended.exit ? json(ended.exit->text()) : json(nullptr);
      process["seconds"] = ended.seconds;
      process["cpu_seconds"] = ended.cpu_seconds;
    }
    record["processes"].push_back(process);
  }
  if (outcome != nullptr) {
    record["ended"] = iso_time(std::chrono::system_clock::now());
    record["exit_code"] = exit_code;
    record["trained_together"] = outcome->was_joined;
    if (outcome->error) record["error"] = outcome->error->message;
  }
  return base::write_file_atomically(folder_ / "run.json", record.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace poseidon::app
