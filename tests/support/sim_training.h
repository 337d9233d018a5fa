// A whole job in virtual time: a coordinator, perhaps dedicated servers, and P workers with membership, an engine, and a script that trains with it. As
// cluster::Worker puts a process together, but on one lane of the simulated world.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cluster/coordinator.h"
#include "cluster/membership.h"
#include "runtime/sim/sim_world.h"
#include "session/replaceable_engine.h"
#include "support/scripted_worker.h"

namespace poseidon::test {

struct SimTrainingOptions {
  TrainingScript script;                    // its plan only says how many workers there are
  runtime::sim::SimOptions world;
  cluster::CoordinatorOptions coordinator;  // workers and servers are filled in
  double flops_per_second = 2e10;
  bool replans = true;                      // the workers can go over to another plan
  int servers = 0;                          // dedicated ones
  // Before this iteration the model is trained without factors, and provisionally.
  std::optional<Iteration> renew_at;
  // Then: what a rank trains from there on, where it is not the script's; and who never says that it does.
  std::map<int, Model> renewed_otherwise;
  std::map<int, std::vector<TensorId>> renewed_values;  // of which it says that it has values then; none where it is not named
  std::set<int> never_renews;
};

class SimTraining {
 public:
  explicit SimTraining(SimTrainingOptions options);
  ~SimTraining();

  runtime::sim::SimWorld& world() { return world_; }
  cluster::Coordinator& coordinator() { return *coordinator_; }
  Member member(int rank) const { return Member{static_cast<std::uint32_t>(rank)}; }

  // Runs until the job is over for the coordinator and for all workers that live; false after `limit`.
  bool run_to_end(runtime::Duration limit);
  // Runs until rank 0 has begun an iteration, or the job is over.
  bool run_to(Iteration iteration);

  const std::vector<std::vector<float>>& parameters(int rank) const;
  std::optional<Error> error(int rank) const;
  // The plan under which the worker ran each of its iterations, as JSON, by iteration from the first.
  const std::vector<std::string>& plans(int rank) const;
  session::EngineUse use(int rank) const;
  // The plans that a dedicated server has installed, as JSON.
  const std::vector<std::string>& plans_of_server(int number) const;
  // It has heard the goodbye.
  bool server_has_ended(int number) const;
  // The script with the plans that were used, for train_alone().
  TrainingScript script_as_run() const;

  plan::PlanSequence versions;  // the plans so far
  std::vector<cluster::PlanChange> changes;
  std::vector<cluster::MeasuredLink> links;
  std::vector<std::string> waits;
  bool finished = false;
  std::optional<Error> failed;  // what the coordinator said

 private:
  struct Crew;
  struct Server;
  SimTrainingOptions options_;
  runtime::sim::SimWorld world_;
  std::unique_ptr<cluster::Coordinator> coordinator_;
  std::vector<std::unique_ptr<Crew>> crews_;
  std::vector<std::unique_ptr<Server>> servers_;
};

}  // namespace poseidon::test
