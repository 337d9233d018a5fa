#include "support/sim_cluster.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "session/wire_engine.h"

namespace poseidon::test {
namespace {

// One member: its arithmetic, its session, and the script that trains with it.
struct Crew {
  Crew(const SimJob& job, runtime::sim::SimMember& member, std::size_t rank, const std::vector<Member>& members)
      : compute(member, {.sum_bytes_per_second = 5e9, .flops_per_second = 2e10}), values(initial_values(job.script, rank)),
        made(session::EngineSession::create(
                 member, member, compute,
                 {.self = Rank{static_cast<std::int32_t>(rank)},
                  .members = members,
                  .model = plan::model_on_wire(job.script.model, job.script.plan.workers, job.script.plan.wire),
                  .plan = job.script.plan,
                  .window_bytes = job.window_bytes})
                 .value()),
        scheduler(made->scheduler()), session(session::WireEngine::around(member, std::move(made), job.script.model, true)),
        worker(job.script, rank, member, *session, values, job.world.seed * 1000003 + rank) {}

  runtime::sim::SimCompute compute;
  std::vector<std::vector<float>> values;
  std::unique_ptr<session::EngineSession> made;  // given on to `session`
  session::SendScheduler& scheduler;             // within it
  std::unique_ptr<session::Engine> session;
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
  std::vector<std::unique_ptr<Crew>> crew;
  for (std::size_t rank = 0; rank < workers; ++rank) {
    crew.push_back(std::make_unique<Crew>(job, world.at(members[rank]), rank, members));
  }
  // Rank 0 sends its values when everybody is ready to take them.
  for (std::size_t rank = workers; rank-- > 0;) {
    Crew& self = *crew[rank];
    self.session->broadcast(views_of(self.values), [&self, &on_trouble] {
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
      for (const std::string& sentence : self->session->overdue(std::chrono::seconds(1), 2)) on_trouble(sentence);
    }
    on_trouble("it did not end");
  }
  result.finished = result.trouble.empty();
  result.time = world.now();
  // What is still on its way (the last credits) arrives, so that bytes can be counted on both sides.
  world.run_for(std::chrono::milliseconds(10));
  result.event_digest = world.event_digest();
  for (std::size_t rank = 0; rank < workers; ++rank) {
    const session::SendScheduler& scheduler = crew[rank]->scheduler;
    result.parameters.push_back(crew[rank]->values);
    result.tensor_bytes.push_back(scheduler.tensor_bytes());
    result.in_flight_max = std::max(result.in_flight_max, scheduler.bytes_in_flight_max());
    std::uint64_t sent = 0;
    for (const Member peer : members) sent += world.at(members[rank]).link_bytes(peer).sent;
    result.link_bytes_sent.push_back(sent);
  }
  return result;
}

}  // namespace poseidon::test
