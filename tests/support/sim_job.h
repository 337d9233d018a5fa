// A job's membership in virtual time: a coordinator, P workers and perhaps dedicated servers, without sessions, to which faults
// happen. What is said "by rank" goes on with the servers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/coordinator.h"
#include "cluster/membership.h"
#include "runtime/sim/sim_world.h"

namespace poseidon::test {

struct SimMembershipOptions {
  int workers = 3;
  int servers = 0;
  runtime::sim::SimOptions world;
  std::vector<Model> models;                // by rank; the last holds for the ranks after it
  cluster::CoordinatorOptions coordinator;  // workers and servers are filled in
  // Worker r's arithmetic runs at this share of the others' speed.
  std::vector<double> flops_per_second;
  std::vector<int> never_join;              // ranks that are not started
  // By rank: what a worker says of its lanes; the last holds for the ranks after it. All run on one here.
  std::vector<std::uint32_t> lanes = {1};
};

class SimMembership {
 public:
  explicit SimMembership(SimMembershipOptions options);
  ~SimMembership();

  struct WorkerState {
    bool planned = false;
    bool started = false;
    bool goodbye = false;
    std::optional<Error> failed;
    runtime::Time failed_at{};
    cluster::OpenEpoch epoch;
    std::string plan;
    std::optional<Model> model;  // that came with it
    std::vector<std::vector<std::string>> gathered;
  };

  runtime::sim::SimWorld& world() { return world_; }
  cluster::Coordinator& coordinator() { return *coordinator_; }
  cluster::Membership& worker(int rank) { return *workers_[static_cast<std::size_t>(rank)]; }
  const WorkerState& state(int rank) const { return states_[static_cast<std::size_t>(rank)]; }
  Member member(int rank) const { return Member{static_cast<std::uint32_t>(rank)}; }

  std::optional<Error> failed;   // what the coordinator said
  bool finished = false;
  bool started = false;
  std::vector<std::string> waits;
  std::vector<std::pair<Rank, std::string>> notes;
  std::optional<plan::Plan> plan;
  plan::Speeds speeds;

  // Runs until all workers have started, or 100 s.
  bool run_to_start();
  // Runs until all living workers have failed; false after `limit`.
  bool run_to_failure(runtime::Duration limit);

 private:
  SimMembershipOptions options_;
  runtime::sim::SimWorld world_;
  std::vector<WorkerState> states_;
  std::vector<std::unique_ptr<runtime::sim::SimCompute>> computes_;
  std::unique_ptr<cluster::Coordinator> coordinator_;
  std::vector<std::unique_ptr<cluster::Membership>> workers_;
};

// A model of one dense layer and one factor layer.
Model small_model();

}  // namespace poseidon::test
