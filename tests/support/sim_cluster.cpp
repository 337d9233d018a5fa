#include "support/sim_cluster.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "host/host_engine.h"
#include "plan/hosts.h"
#include "runtime/sim/sim_memory.h"

namespace poseidon::test {
namespace {

// One member: its arithmetic, its engine, and the script that trains with it.
struct Crew {
  Crew(const SimJob& job, runtime::sim::SimMember& member, std::size_t rank, const std::vector<Member>& members, runtime::sim::SimHost& host)
      : compute(member, {.sum_bytes_per_second = 5e9, .flops_per_second = 2e10}), values(initial_values(job.script, rank)),
        memory(host, members[rank]), engine(make_engine(job, member, Rank{static_cast<std::int32_t>(rank)}, members)),
        worker(job.script, rank, member, *engine, values, job.world.seed * 1000003 + rank) {}

  std::unique_ptr<session::Engine> make_engine(const SimJob& job, runtime::sim::SimMember& member, Rank self, const std::vector<Member>& members) {
    const plan::Plan& plan = job.script.plan;
    const plan::HostPlace place = plan::host_place(plan, self);
    std::unique_ptr<session::EngineSession> session;
    if (plan.hosts.size() != 1 && place.place == 0) {
      session::EngineOptions options{.self = Rank{static_cast<std::int32_t>(place.group)},
                                     .members = members,
                                     .model = plan::network_model(job.script.model, plan.hosts),
                                     .plan = plan::network_plan(plan),
                                     .window_bytes = job.window_bytes,
                                     .leaders = plan::leaders_of(plan.hosts)};
      if (!plan.hosts.empty()) options.members.clear();
      for (const std::vector<Rank>& group : plan.hosts) options.members.push_back(members[static_cast<std::size_t>(index(group[0]))]);
      session = session::EngineSession::create(member, member, compute, std::move(options)).value();
      network = session.get();
    }
    if (plan.hosts.empty()) return session;
    return std::make_unique<host::HostEngine>(member, member, compute, memory, std::move(session),
                                              host::HostEngineOptions{.self = self, .members = members, .model = job.script.model, .plan = plan});
  }

  runtime::sim::SimCompute compute;
  std::vector<std::vector<float>> values;
  runtime::sim::SimMemory memory;
  session::EngineSession* network = nullptr;  // what speaks over the network, where this member does
  std::unique_ptr<session::Engine> engine;
  ScriptedWorker worker;
  bool finished = false;
};

}  // namespace

SimResult run(const SimJob& job) {
  SimResult result;
  const std::size_t workers = static_cast<std::size_t>(job.script.plan.workers);
  runtime::sim::SimWorld world(job.world);
  std::vector<Member> members;
  for (std::size_t rank = 0; rank < workers; ++rank) members.push_back(Member{static_cast<std::uint32_t>(10 + rank)});
  const auto on_trouble = [&](const std::string& text) {
    if (result.trouble.empty()) result.trouble = text;
  };
  for (const Member member : members) {
    world.add(member).set_listener({.on_down = [&](Member, const Error& why) { on_trouble(why.message); }});
  }
  for (std::size_t a = 0; a < workers; ++a) {
    for (std::size_t b = 0; b < a; ++b) world.at(members[a]).connect(members[b], {}, std::chrono::seconds(1));
  }
  world.run_for(4 * job.world.latency + std::chrono::milliseconds(1));  // all links are up
  runtime::sim::SimHost host;
  std::vector<std::unique_ptr<Crew>> crew;
  for (std::size_t rank = 0; rank < workers; ++rank) {
    crew.push_back(std::make_unique<Crew>(job, world.at(members[rank]), rank, members, host));
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
    on_trouble("it did not end");
  }
  result.finished = result.trouble.empty();
  result.time = world.now();
  // What is still on its way (the last credits) arrives, so that bytes can be counted on both sides.
  world.run_for(std::chrono::milliseconds(10));
  result.event_digest = world.event_digest();
  for (std::size_t rank = 0; rank < workers; ++rank) {
    result.parameters.push_back(crew[rank]->values);
    result.tensor_bytes.push_back(crew[rank]->engine->use().tensors);
    if (session::EngineSession* const network = crew[rank]->network) {
      result.in_flight_max = std::max(result.in_flight_max, network->scheduler().bytes_in_flight_max());
    }
    std::uint64_t sent = 0;
    for (const Member peer : members) sent += world.at(members[rank]).link_bytes(peer).sent;
    result.link_bytes_sent.push_back(sent);
  }
  return result;
}

}  // namespace poseidon::test
