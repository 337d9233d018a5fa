#include "replay/simulated_cluster.h"

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "runtime/sim/sim_world.h"
#include "session/engine_session.h"
#include "session/wire_engine.h"

namespace poseidon::replay {
namespace {

using runtime::sim::SimCompute;
using runtime::sim::SimMember;
using runtime::sim::SimWorld;

// With more nodes frames leave whole: an event less for each decides whether a thousand nodes take minutes
// (docs/decisions/0018-a-thousand-nodes.md).
constexpr int kInterleavedNodesMax = 64;

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
              .model = plan::model_on_wire(model.model, options.plan.workers, options.plan.wire),
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
      : clock(member), device(member), sums(member, {.sum_bytes_per_second = options.sum_bytes_per_second, .flops_per_second = 1, .arithmetic = false}),
        compute(device, member, sums, options.workload, model.model),
        session(session::WireEngine::around(member, make_session(options, model, member, compute, rank, members, events), model.model,
                                            options.priorities)),
        worker(member, *session, device, options.workload, model, Scratch::size_only(), options.overlap) {}

  // `on_begin`, which may be null, is told how many iterations have ended, when one begins and when another would begin.
  struct Listener {
    std::function<void(const Error&)> on_error;
    std::function<void(int ended)> on_begin;
  };
  void run(int iterations, Overlap overlap, const Listener& listener) {
    if (overlap == Overlap::kFull) return begin(iterations, overlap, listener, runtime::Duration(0));
    // The worker would wait for all sums by itself, but not say when it is done with that.
    const runtime::Time since = clock.now();
    worker.settle([this, iterations, overlap, listener, since](const std::optional<Error>& error) {
      if (error) return listener.on_error(*error);
      begin(iterations, overlap, listener, clock.now() - since);
    });
  }

 private:
  void begin(int iterations, Overlap overlap, const Listener& listener, runtime::Duration waited) {
    begins.push_back(clock.now());
    if (listener.on_begin) listener.on_begin(static_cast<int>(times.size()));
    if (iterations == 0) return worker.settle([this](const std::optional<Error>&) { finished = true; });
    worker.run([this, iterations, overlap, listener, waited](const Result<IterationTimes>& result) {
      if (!result) return listener.on_error(result.error());
      times.push_back(*result);
      times.back().waited += waited;
      run(iterations - 1, overlap, listener);
    });
  }

 public:
  const runtime::Runtime& clock;
  Device device;
  SimCompute sums;
  ReplayCompute compute;
  std::unique_ptr<session::Engine> session;
  ReplayWorker worker;
  std::vector<IterationTimes> times;
  std::vector<runtime::Time> begins;  // of the iterations, and of the one that would follow
  bool finished = false;
};

// The state of things at a moment.
struct Look {
  Look(SimWorld& world, const std::vector<Member>& members, const Node& first) : time(world.now()), busy(first.device.busy()) {
    for (const Member member : members) bytes.push_back(world.at(member).all_link_bytes());
  }
  runtime::Time time;
  runtime::Duration busy;                 // rank 0's device
  std::vector<runtime::LinkBytes> bytes;  // by node
};

}  // namespace

Result<SimulationResult> simulate(const SimulationOptions& options) {
  const plan::DescribedModel model = plan::model_of(options.workload.description, options.workload.batch);
  SimWorld world({.seed = options.seed,
                  .bytes_per_second = options.link_bytes_per_second,
                  .latency = options.latency,
                  .interleave = options.plan.nodes() <= kInterleavedNodesMax});
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
  const int iterations = options.warm_up + options.iterations;
  watcher.watched = static_cast<Iteration>(iterations - 1);
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
  // What is counted lies between two looks: when rank 0 begins the first counted iteration, and when it would begin the one after
  // the last. In a steady state as many bytes move between them as in so many iterations, though not the same ones.
  std::vector<Look> looks;
  const auto look = [&](int ended) {
    if (ended >= options.warm_up) looks.emplace_back(world, members, *nodes.front());
  };
  for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
    const auto on_error = [&failed](const Error& error) {
      if (!failed) failed = error;
    };
    nodes[rank]->run(iterations, options.overlap, {on_error, rank == 0 ? look : std::function<void(int)>()});
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
  double waited = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(options.iterations); ++i) {
    // Of all workers: one that owns a large block has its sum at once and runs ahead of those to whom it still sends.
    const std::size_t at = static_cast<std::size_t>(options.warm_up) + i;
    double sum = 0;
    for (const auto& node : nodes) sum += seconds(node->begins[at + 1] - node->begins[at]);
    result.iteration_seconds.push_back(sum / static_cast<double>(nodes.size()));
    waited += seconds(nodes.front()->times[static_cast<std::size_t>(options.warm_up) + i].waited);
  }
  result.waited_seconds = waited / options.iterations;
  const IterationTimes& last = nodes.front()->times.back();
  if (last.longest.count() > 0) result.waited_for = options.workload.description.layers[last.longest_for].name;
  const Look& from = looks.front();
  const Look& to = looks.back();
  const double counted = seconds(to.time - from.time);
  result.device_busy = seconds(to.busy - from.busy) / counted;
  for (std::size_t node = 0; node < members.size(); ++node) {
    const auto share = [&](std::uint64_t bytes) { return static_cast<double>(bytes) / counted / options.link_bytes_per_second; };
    result.link_sent = std::max(result.link_sent, share(to.bytes[node].sent - from.bytes[node].sent));
    result.link_received = std::max(result.link_received, share(to.bytes[node].received - from.bytes[node].received));
  }
  const runtime::Time origin = looks[looks.size() - 2].time;
  for (std::size_t l = 0; l < model.model.layers.size(); ++l) {
    result.layers.push_back({seconds(watcher.queued(l) - origin), seconds(watcher.synced(l) - origin)});
  }
  result.events = world.events();
  return result;
}

}  // namespace poseidon::replay
