#include "support/sim_cluster.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "session/wire_engine.h"

namespace poseidon::test {
namespace {

// One member's arithmetic and session: all there is of a dedicated server.
struct Server {
  Server(const SimJob& job, runtime::sim::SimMember& member, std::size_t node, const std::vector<Member>& members)
      : compute(member, {.sum_bytes_per_second = 5e9, .flops_per_second = 2e10}),
        made(session::EngineSession::create(
                 member, member, compute,
                 {.self = Rank{static_cast<std::int32_t>(node)},
                  .members = members,
                  .model = plan::model_on_wire(job.script.model, job.script.plan.workers, job.script.plan.wire),
                  .plan = job.script.plan,
                  .window_bytes = job.window_bytes,
                  .staging_bytes_max = job.staging_bytes_max,
                  .priorities = job.priorities})
                 .value()),
        session(made.get()) {}

  runtime::sim::SimCompute compute;
  std::unique_ptr<session::EngineSession> made;  // a worker gives it on to its engine
  session::EngineSession* session;
};

// A worker has parameters as well, and the script that trains them.
struct Crew : Server {
  Crew(const SimJob& job, runtime::sim::SimMember& member, std::size_t rank, const std::vector<Member>& members)
      : Server(job, member, rank, members), values(initial_values(job.script, rank)),
        engine(session::WireEngine::around(member, std::move(made), job.script.model, job.priorities)),
        worker(job.script, rank, member, *engine, values, job.world.seed * 1000003 + rank) {}

  std::vector<std::vector<float>> values;
  std::unique_ptr<session::Engine> engine;
  ScriptedWorker worker;
  bool finished = false;
};

}  // namespace

SimResult run(const SimJob& job) {
  SimResult result;
  const std::size_t workers = static_cast<std::size_t>(job.script.plan.workers);
  const std::size_t nodes = static_cast<std::size_t>(job.script.plan.nodes());
  runtime::sim::SimWorld world(job.world);
  std::vector<Member> members;
  for (std::size_t node = 0; node < nodes; ++node) members.push_back(Member{static_cast<std::uint32_t>(10 + node)});
  const auto on_trouble = [&](const std::string& text) {
    if (result.trouble.empty()) result.trouble = text;
  };
  for (const Member member : members) {
    world.add(member).set_listener({.on_down = [&](Member, const Error& why) { on_trouble(why.message); }});
  }
  for (std::size_t a = 0; a < nodes; ++a) {
    for (std::size_t b = 0; b < a; ++b) world.at(members[a]).connect(members[b], {}, std::chrono::seconds(1));
  }
  world.run_for(4 * job.world.latency + std::chrono::milliseconds(1));  // all links are up
  std::vector<std::unique_ptr<Crew>> crew;
  for (std::size_t rank = 0; rank < workers; ++rank) {
    crew.push_back(std::make_unique<Crew>(job, world.at(members[rank]), rank, members));
  }
  std::vector<std::unique_ptr<Server>> servers;
  for (std::size_t node = workers; node < nodes; ++node) {
    servers.push_back(std::make_unique<Server>(job, world.at(members[node]), node, members));
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
      for (const std::string& sentence : self->session->overdue(std::chrono::seconds(1), 2)) on_trouble(sentence);
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
    session::SendScheduler& scheduler = (node < workers ? *crew[node] : *servers[node - workers]).session->scheduler();
    result.tensor_bytes.push_back(scheduler.tensor_bytes());
    result.in_flight_max = std::max(result.in_flight_max, scheduler.bytes_in_flight_max());
    result.staging_max.push_back((node < workers ? *crew[node] : *servers[node - workers]).session->staging_bytes_max());
    std::uint64_t sent = 0;
    for (const Member peer : members) sent += world.at(members[node]).link_bytes(peer).sent;
    result.link_bytes_sent.push_back(sent);
  }
  return result;
}

}  // namespace poseidon::test
