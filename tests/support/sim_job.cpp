#include "support/sim_job.h"

#include <algorithm>

namespace poseidon::test {

using namespace std::chrono_literals;

SimMembership::SimMembership(SimMembershipOptions options) : options_(std::move(options)), world_(options_.world) {
  if (options_.models.empty()) options_.models.push_back(small_model());
  options_.coordinator.workers = options_.workers;
  options_.coordinator.servers = options_.servers;
  const int nodes = options_.workers + options_.servers;
  states_.resize(static_cast<std::size_t>(nodes));
  runtime::sim::SimMember& hub = world_.add(runtime::kCoordinator);
  for (int rank = 0; rank < nodes; ++rank) world_.add(member(rank));
  coordinator_ = std::make_unique<cluster::Coordinator>(
      hub, hub, options_.coordinator,
      cluster::CoordinatorListener{
          .on_wait = [this](const std::string& text) { waits.push_back(text); },
          .on_plan =
              [this](const plan::Plan& made, const std::vector<plan::LayerChoice>&, const plan::Speeds& measured, const Model&) {
                plan = made;
                speeds = measured;
              },
          .on_start = [this] { started = true; },
          .on_note = [this](Rank from, const std::string& body) { notes.emplace_back(from, body); },
          .on_finish = [this] { finished = true; },
          .on_fail = [this](const Error& why) { failed = why; }});
  for (int rank = 0; rank < nodes; ++rank) {
    const std::size_t r = static_cast<std::size_t>(rank);
    const bool is_server = rank >= options_.workers;
    runtime::sim::SimMember& node = world_.at(member(rank));
    WorkerState& state = states_[r];
    const double flops = r < options_.flops_per_second.size() ? options_.flops_per_second[r] : 1e11;
    computes_.push_back(std::make_unique<runtime::sim::SimCompute>(
        node, runtime::sim::SimCompute::Speeds{.sum_bytes_per_second = 5e9, .flops_per_second = flops, .arithmetic = false}));
    workers_.push_back(std::make_unique<cluster::Membership>(
        node, node, *computes_.back(),
        cluster::MembershipOptions{.self = {member(rank), Rank{rank}, "node" + std::to_string(rank), 100 + rank, {},
                                            options_.lanes[std::min(r, options_.lanes.size() - 1)],
                                            is_server ? std::optional<std::uint32_t>(rank - options_.workers) : std::nullopt},
                                   .workers = options_.workers,
                                   .servers = options_.servers,
                                   .coordinator = {},
                                   .model = is_server ? Model{} : options_.models[std::min(r, options_.models.size() - 1)],
                                   .heartbeat = options_.coordinator.heartbeat},
        cluster::MembershipListener{.on_plan =
                                        [this, &state, r](const cluster::OpenEpoch& epoch, const cluster::UsePlan& use) {
                                          state.planned = true;
                                          state.epoch = epoch;
                                          state.plan = use.plan;
                                          state.model = use.model;
                                          workers_[r]->ready();
                                        },
                                    .on_start = [&state] { state.started = true; },
                                    .on_gathered = [&state](const std::vector<std::string>& bodies) { state.gathered.push_back(bodies); },
                                    .on_goodbye = [&state] { state.goodbye = true; },
                                    .on_fail =
                                        [this, &state](const Error& why) {
                                          state.failed = why;
                                          state.failed_at = world_.now();
                                        }}));
    const bool joins = std::find(options_.never_join.begin(), options_.never_join.end(), rank) == options_.never_join.end();
    if (joins) node.post([this, r] { workers_[r]->join(); });
  }
}

SimMembership::~SimMembership() = default;

bool SimMembership::run_to_start() {
  return world_.run_until(
      [this] { return std::all_of(states_.begin(), states_.end(), [](const WorkerState& s) { return s.started; }); }, world_.now() + 100s);
}

bool SimMembership::run_to_failure(runtime::Duration limit) {
  return world_.run_until(
      [this] {
        for (int rank = 0; rank < options_.workers + options_.servers; ++rank) {
          if (world_.at(member(rank)).alive() && !state(rank).failed) return false;
        }
        return true;
      },
      world_.now() + limit);
}

Model small_model() {
  Model model;
  model.tensors = {{"conv1.weight", {4, 1, 3, 3}, DType::kFloat32}, {"ip1.weight", {16, 36}, DType::kFloat32}, {"ip1.bias", {16}, DType::kFloat32}};
  model.layers = {{"conv1", {TensorId{0}}, 0}, {"ip1", {TensorId{1}, TensorId{2}}, 4}};
  return model;
}

}  // namespace poseidon::test
