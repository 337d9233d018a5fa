#include "replay/simulated_cluster.h"

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"

namespace poseidon::replay {
namespace {

using runtime::sim::SimCompute;
using runtime::sim::SimMember;
using runtime::sim::SimWorld;

double seconds(runtime::Duration duration) { return std::chrono::duration<double>(duration).count(); }

// When each layer's gradient was queued, and its sum in: of one worker.
class Watcher : public base::EventListener {
 public:
  explicit Watcher(const Model& model) : layer_of_(model.tensors.size(), 0), queued_(model.layers.size()), synced_(model.layers.size()) {
    for (std::size_t l = 0; l < model.layers.size(); ++l) {
      for (const TensorId tensor : model.layers[l].tensors) layer_of_[index(tensor)] = l;
    }
  }
  void record(const base::Event& event) override {
    if (event.iteration != watched) return;
    const std::size_t layer = event.tensor < layer_of_.size() ? layer_of_[event.tensor] : 0;
    if (event.kind == base::EventKind::kQueued && queued_[layer].count() == 0) queued_[layer] = event.time;
    if (event.kind == base::EventKind::kSynced) synced_[layer] = std::max(synced_[layer], event.time);
  }
  runtime::Time queued(std::size_t layer) const { return queued_[layer]; }
  runtime::Time synced(std::size_t layer) const { return synced_[layer]; }

  Iteration watched = 0;

 private:
  std::vector<std::size_t> layer_of_;
  std::vector<runtime::Time> queued_;
  std::vector<runtime::Time> synced_;
};

std::unique_ptr<session::EngineSession> make_session(const SimulationOptions& options, const plan::DescribedModel& model, SimMember& member,
                                                     runtime::Compute& compute, std::size_t node, const std::vector<Member>& members,
                                                     base::EventListener* events) {
  return session::EngineSession::create(
             member, member, compute,
             {.self = Rank{static_cast<std::int32_t>(node)},
              .members = members,
              .model = model.model,
              .plan = options.plan,
              .window_bytes = session::window_bytes_for({.link_bytes_per_second = options.link_bytes_per_second,
                                                         .latency_seconds = seconds(options.latency),
                                                         .dilation = options.workload.dilation}),
              .priorities = options.priorities,
              .size_only = true,
              .events = events,
              // A slow link is no news here.
              .explain_after = std::chrono::hours(24),
              .wait_max = std::chrono::hours(24 * 365)})
      .value();
}

// A dedicated server: all that it does is to sum.
struct Server {
  Server(const SimulationOptions& options, const plan::DescribedModel& model, SimMember& member, std::size_t node,
         const std::vector<Member>& members)
      : sums(member, {.sum_bytes_per_second = options.sum_bytes_per_second, .flops_per_second = 1, .arithmetic = false}),
        session(make_session(options, model, member, sums, node, members, nullptr)) {}

  SimCompute sums;
  std::unique_ptr<session::EngineSession> session;
};

// A node that trains.
struct Node {
  Node(const SimulationOptions& options, const plan::DescribedModel& model, SimMember& member, std::size_t rank,
       const std::vector<Member>& members, base::EventListener* events)
      : device(member), sums(member, {.sum_bytes_per_second = options.sum_bytes_per_second, .flops_per_second = 1, .arithmetic = false}),
        compute(device, member, sums, options.workload, model.model),
        session(make_session(options, model, member, compute, rank, members, events)),
        worker(member, *session, device, options.workload, model, Scratch::size_only(), options.overlap) {}

  void run(int iterations, const std::function<void(const Error&)>& on_error) {
    if (iterations == 0) {
      worker.settle([this](const std::optional<Error>&) { finished = true; });
      return;
    }
    worker.run([this, iterations, on_error](const Result<IterationTimes>& result) {
      if (!result) return on_error(result.error());
      times.push_back(*result);
      run(iterations - 1, on_error);
    });
  }

  Device device;
  SimCompute sums;
  ReplayCompute compute;
  std::unique_ptr<session::EngineSession> session;
  ReplayWorker worker;
  std::vector<IterationTimes> times;
  bool finished = false;
};

}  // namespace

Result<SimulationResult> simulate(const SimulationOptions& options) {
  const plan::DescribedModel model = plan::model_of(options.workload.description, options.workload.batch);
  SimWorld world({.seed = options.seed, .bytes_per_second = options.link_bytes_per_second, .latency = options.latency});
  std::vector<Member> members;
  for (int node = 0; node < options.plan.nodes(); ++node) {
    members.push_back(Member{static_cast<std::uint32_t>(node)});
    world.add(members.back());
  }
  for (std::size_t a = 0; a < members.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) world.at(members[a]).connect(members[b], {}, std::chrono::seconds(1));
  }
  world.run_for(4 * options.latency + std::chrono::microseconds(1));  // all links are up
  Watcher watcher(model.model);
  // One more than is counted: an iteration ends where the next forward pass begins.
  const int iterations = options.warm_up + options.iterations + 1;
  watcher.watched = static_cast<Iteration>(iterations - 2);
  std::vector<std::unique_ptr<Node>> nodes;
  const std::size_t workers = static_cast<std::size_t>(options.plan.workers);
  std::vector<std::unique_ptr<Server>> servers;
  for (std::size_t node = workers; node < members.size(); ++node) {
    servers.push_back(std::make_unique<Server>(options, model, world.at(members[node]), node, members));
  }
  for (std::size_t rank = 0; rank < workers; ++rank) {
    nodes.push_back(std::make_unique<Node>(options, model, world.at(members[rank]), rank, members, rank == 0 ? &watcher : nullptr));
  }
  std::optional<Error> failed;
  const runtime::Time begin = world.now();
  for (const auto& node : nodes) {
    node->run(iterations, [&failed](const Error& error) {
      if (!failed) failed = error;
    });
  }
  // A hundred times what an iteration takes with no overlap at all is no iteration any more.
  const double patience = 100 * iterations * (options.workload.iteration_seconds() +
                                              8.0 * static_cast<double>(options.workload.description.parameters()) *
                                                  options.plan.workers / options.link_bytes_per_second + 1);
  const bool ended = world.run_until(
      [&] { return failed || std::all_of(nodes.begin(), nodes.end(), [](const auto& n) { return n->finished; }); },
      begin + runtime::Duration(static_cast<std::int64_t>(std::min(patience, 1e9) * 1e9)));
  if (failed) return *failed;
  if (!ended) {
    std::string why = "no event is left";
    for (const auto& node : nodes) {
      for (const std::string& sentence : node->session->overdue(runtime::Duration(0), 1)) why = sentence;
    }
    return Error{ErrorCode::kTimeout, base::concat("the simulated job does not end: ", why)};
  }
  SimulationResult result;
  const Node& first = *nodes.front();
  const std::size_t from = static_cast<std::size_t>(options.warm_up);
  const std::size_t to = from + static_cast<std::size_t>(options.iterations);
  double waited = 0;
  for (std::size_t i = from; i < to; ++i) {
    result.iteration_seconds.push_back(seconds(first.times[i + 1].begin - first.times[i].begin));
    waited += seconds(first.times[i].waited);
  }
  result.waited_seconds = waited / options.iterations;
  // Over the whole run: every iteration moves the same bytes.
  const double elapsed = seconds(world.now() - begin);
  result.device_busy = seconds(first.device.busy()) / elapsed;
  for (const Member node : members) {
    double sent = 0;
    double received = 0;
    for (const Member peer : members) {
      const runtime::LinkBytes bytes = world.at(node).link_bytes(peer);
      sent += static_cast<double>(bytes.sent);
      received += static_cast<double>(bytes.received);
    }
    result.link_sent = std::max(result.link_sent, sent / elapsed / options.link_bytes_per_second);
    result.link_received = std::max(result.link_received, received / elapsed / options.link_bytes_per_second);
  }
  const runtime::Time origin = first.times[to - 1].begin;
  for (std::size_t l = 0; l < model.model.layers.size(); ++l) {
    result.layers.push_back({seconds(watcher.queued(l) - origin), seconds(watcher.synced(l) - origin)});
  }
  result.events = world.events();
  return result;
}

}  // namespace poseidon::replay
