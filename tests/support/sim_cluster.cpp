#include "support/sim_cluster.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "host/host_engine.h"
#include "plan/hosts.h"
#include "runtime/sim/sim_memory.h"
#include "session/laned_engine.h"
#include "session/wire_engine.h"

namespace poseidon::test {
namespace {

std::vector<runtime::sim::SimMember*> lanes_of(runtime::sim::SimWorld& world, Member member, std::size_t lanes) {
  std::vector<runtime::sim::SimMember*> all;
  for (std::size_t lane = 0; lane < lanes; ++lane) all.push_back(world.find(member, lane));
  return all;
}

// One member's arithmetic, memory and sessions: all there is of a dedicated server.
struct Server {
  Server(const SimJob& job, const std::vector<runtime::sim::SimMember*>& lanes, std::size_t member, const std::vector<Member>& members,
         runtime::sim::SimHost& host)
      : memory(host, members[member]) {
    for (runtime::sim::SimMember* const lane : lanes) {
      computes.push_back(std::make_unique<runtime::sim::SimCompute>(
          *lane, runtime::sim::SimCompute::Speeds{.sum_bytes_per_second = 5e9, .flops_per_second = 2e10}));
    }
    const plan::Plan& plan = job.script.plan;
    const Rank self{static_cast<std::int32_t>(member)};
    if (plan.hosts.size() != 1 && plan::host_place(plan, self).place == 0) engine = make_network(job, lanes, self, members);
    if (plan.hosts.empty()) return;
    engine = std::make_unique<host::HostEngine>(
        *lanes.front(), *lanes.front(), *computes.front(), memory, std::move(engine),
        host::HostEngineOptions{.self = self, .members = members, .model = job.script.model, .plan = plan, .priorities = job.priorities});
  }

  std::unique_ptr<session::Engine> make_network(const SimJob& job, const std::vector<runtime::sim::SimMember*>& lanes, Rank self,
                                                const std::vector<Member>& members) {
    const plan::Plan& plan = job.script.plan;
    const Model model = plan::network_model(job.script.model, plan.hosts);
    session::EngineOptions options{.self = Rank{static_cast<std::int32_t>(plan::host_place(plan, self).group)},
                                   .members = {},
                                   .model = plan::model_on_wire(model, plan::nodes_of(plan), plan.wire),
                                   .plan = plan::network_plan(plan),
                                   .window_bytes = job.window_bytes,
                                   .staging_bytes_max = job.staging_bytes_max / lanes.size(),
                                   .priorities = job.priorities,
                                   .leaders = plan::leaders_of(plan.hosts)};
    for (std::size_t other = 0; other < members.size(); ++other) {
      if (plan::host_place(plan, Rank{static_cast<std::int32_t>(other)}).place == 0) options.members.push_back(members[other]);
    }
    if (lanes.size() > 1) {
      options.share.deal = std::make_shared<plan::LaneDeal>(options.model, options.plan, job.deal);
      budget = std::make_shared<session::LinkBudget>(job.window_bytes, options.members,
                                                     std::vector<runtime::Runtime*>(lanes.begin(), lanes.end()),
                                                     session::PeerWindows(options.plan, options.self, options.members));
      options.share.budget = budget;
    }
    std::vector<session::EngineLane> parts;
    for (runtime::sim::SimMember* const lane : lanes) {
      options.share.lane = parts.size();
      auto session = session::EngineSession::create(*lane, *lane, *computes[parts.size()], options).value();
      schedulers.push_back(&session->scheduler());
      parts.push_back({lane, [](const runtime::Task& task) { task(); }, std::move(session)});
    }
    std::unique_ptr<session::Engine> network =
        lanes.size() == 1 ? std::move(parts.front().engine)
                          : std::make_unique<session::LanedEngine>(options.model, options.share.deal, std::move(parts));
    return session::WireEngine::around(*lanes.front(), std::move(network), model, job.priorities);
  }

  // Over the network; 0 where another member speaks for this one.
  std::size_t in_flight_max() const {
    if (budget) return budget->bytes_in_flight_max();
    return schedulers.empty() ? 0 : schedulers.front()->bytes_in_flight_max();
  }

  runtime::sim::SimMemory memory;
  std::vector<std::unique_ptr<runtime::sim::SimCompute>> computes;
  std::shared_ptr<session::LinkBudget> budget;      // with several lanes
  std::vector<session::SendScheduler*> schedulers;  // by lane
  std::unique_ptr<session::Engine> engine;
};

// A worker has parameters as well, and the script that trains them.
struct Crew : Server {
  Crew(const SimJob& job, const std::vector<runtime::sim::SimMember*>& lanes, std::size_t rank, const std::vector<Member>& members,
       runtime::sim::SimHost& host)
      : Server(job, lanes, rank, members, host), values(initial_values(job.script, rank)),
        worker(job.script, rank, *lanes.front(), *engine, values, job.world.seed * 1000003 + rank) {}

  std::vector<std::vector<float>> values;
  ScriptedWorker worker;
  bool finished = false;
};

}  // namespace

SimResult run(const SimJob& job) {
  SimResult result;
  const std::size_t workers = static_cast<std::size_t>(job.script.plan.workers);
  // Dedicated servers come after the workers; of hosts, all workers are members.
  const std::size_t nodes = job.script.plan.hosts.empty() ? static_cast<std::size_t>(job.script.plan.nodes()) : workers;
  runtime::sim::SimWorld world(job.world);
  std::vector<Member> members;
  for (std::size_t node = 0; node < nodes; ++node) members.push_back(Member{static_cast<std::uint32_t>(10 + node)});
  const auto on_trouble = [&](const std::string& text) {
    if (result.trouble.empty()) result.trouble = text;
  };
  for (const Member member : members) {
    world.add(member);
    for (std::size_t lane = 1; lane < job.deal.lanes; ++lane) world.add_lane(member);
    for (runtime::sim::SimMember* const lane : lanes_of(world, member, job.deal.lanes)) {
      lane->set_listener({.on_down = [&](Member, const Error& why) { on_trouble(why.message); }});
    }
  }
  for (std::size_t a = 0; a < nodes; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      for (runtime::sim::SimMember* const lane : lanes_of(world, members[a], job.deal.lanes)) {
        lane->connect(members[b], {}, std::chrono::seconds(1));
      }
    }
  }
  world.run_for(4 * job.world.latency + std::chrono::milliseconds(1));  // all links are up
  runtime::sim::SimHost host;
  std::vector<std::unique_ptr<Crew>> crew;
  for (std::size_t rank = 0; rank < workers; ++rank) {
    crew.push_back(std::make_unique<Crew>(job, lanes_of(world, members[rank], job.deal.lanes), rank, members, host));
  }
  std::vector<std::unique_ptr<Server>> servers;
  for (std::size_t node = workers; node < nodes; ++node) {
    servers.push_back(std::make_unique<Server>(job, lanes_of(world, members[node], job.deal.lanes), node, members, host));
  }
  // Rank 0 sends its values when everybody is ready to take them.
  for (std::size_t rank = workers; rank-- > 0;) {
    Crew& self = *crew[rank];
    self.engine->broadcast(views_of(self.values), [&self, &on_trouble] {
      self.worker.start([&self, &on_trouble](const std::optional<Error>& error) {
        self.finished = true;
        if (error) on_trouble(error->message);
      });
    });
  }
  const bool all_ended = world.run_until(
      [&] {
        return !result.trouble.empty() || std::all_of(crew.begin(), crew.end(), [](const auto& c) { return c->finished; });
      },
      world.now() + std::chrono::seconds(1000));
  if (!all_ended) {
    for (const auto& self : crew) {
      for (const std::string& sentence : self->engine->overdue(std::chrono::seconds(1), 2)) on_trouble(sentence);
    }
    for (const auto& self : servers) {
      for (const std::string& sentence : self->engine->overdue(std::chrono::seconds(1), 2)) on_trouble(sentence);
    }
    on_trouble("it did not end");
  }
  result.finished = result.trouble.empty();
  result.time = world.now();
  // What is still on its way (the last credits) arrives, so that bytes can be counted on both sides.
  world.run_for(std::chrono::milliseconds(10));
  result.event_digest = world.event_digest();
  for (const auto& self : crew) result.parameters.push_back(self->values);
  for (std::size_t node = 0; node < nodes; ++node) {
    const Server& self = node < workers ? *crew[node] : *servers[node - workers];
    const session::EngineUse use = self.engine->use();
    result.tensor_bytes.push_back(use.tensors);
    result.staging_max.push_back(use.staging_bytes_max);
    result.in_flight_max = std::max(result.in_flight_max, self.in_flight_max());
    std::uint64_t sent = 0;
    for (const runtime::sim::SimMember* const lane : lanes_of(world, members[node], job.deal.lanes)) {
      for (const Member peer : members) sent += lane->link_bytes(peer).sent;
    }
    result.link_bytes_sent.push_back(sent);
  }
  return result;
}

}  // namespace poseidon::test
