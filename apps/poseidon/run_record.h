// run.json: what a run was, for people who come back to its folder, and for programs.
#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/coordinator.h"
#include "launch/cluster_job.h"
#include "plan/plan_sequence.h"

namespace poseidon::app {

// Calls may come from any thread.
class RunRecord {
 public:
  // Writes the file at once, so that a run that is cut off has left it.
  RunRecord(std::filesystem::path folder, const launch::ClusterJobOptions& job, std::string schemes);

  void on_host(const std::string& host, const launch::AgentHello& hello);
  void on_links(const std::vector<cluster::MeasuredLink>& links);
  void on_plan(const plan::Plan& plan);
  void on_change(const cluster::PlanChange& change);
  // What a worker says: of itself, once; of its progress (metrics.jsonl), now and then; when it leaves, its part of the timeline in slices.
  void on_note(Rank from, const std::string& body);
  // The files, complete.
  Status finish(const launch::ClusterOutcome& outcome, int exit_code);

 private:
  struct Host {
    std::string name;
    int cores = 0;
  };
  Status write(const launch::ClusterOutcome* outcome, int exit_code);
  Status write_plans();

  std::mutex mutex_;
  std::filesystem::path folder_;
  const launch::ClusterJobOptions& job_;
  std::string schemes_;
  std::chrono::system_clock::time_point begin_ = std::chrono::system_clock::now();
  std::map<std::string, Host> hosts_;  // by the user's name
  std::vector<cluster::MeasuredLink> links_;
  plan::PlanSequence plans_;
  std::map<Rank, std::string> notes_;  // what each worker has said about itself
  std::ofstream metrics_;              // opened when the first worker tells of its progress
  std::set<Rank> timelines_;           // of these ranks, parts of the timeline have come
};

}  // namespace poseidon::app
