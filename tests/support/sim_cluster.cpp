#include "support/sim_cluster.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "session/laned_engine.h"

namespace poseidon::test {
namespace {

std::vector<runtime::sim::SimMember*> lanes_of(runtime::sim::SimWorld& world, Member member, std::size_t lanes) {
  std::vector<runtime::sim::SimMember*> all;
  for (std::size_t lane = 0; lane < lanes; ++lane) all.push_back(world.find(member, lane));
  return all;
}

// One member: its arithmetic, its session, and the script that trains with it.
struct Crew {
  Crew(const SimJob& job, const std::vector<runtime::sim::SimMember*>& lanes, std::size_t rank, const std::vector<Member>& members)
      : values(initial_values(job.script, rank)), engine(make_engine(job, lanes, rank, members)),
        worker(job.script, rank, *lanes.front(), *engine, values, job.world.seed * 1000003 + rank) {}

  std::unique_ptr<session::Engine> make_engine(const SimJob& job, const std::vector<runtime::sim::SimMember*>& lanes, std::size_t rank,
                                               const std::vector<Member>& members) {
    session::EngineOptions options{.self = Rank{static_cast<std::int32_t>(rank)},
                                   .members = members,
                                   .model = job.script.model,
                                   .plan = job.script.plan,
                                   .window_bytes = job.window_bytes};
    if (lanes.size() > 1) {
      options.share.deal = std::make_shared<plan::LaneDeal>(job.script.model, job.script.plan, job.deal);
      budget = std::make_shared<session::LinkBudget>(job.window_bytes, members,
                                                     std::vector<runtime::Runtime*>(lanes.begin(), lanes.end()));
      options.share.budget = budget;
    }
    std::vector<session::EngineLane> parts;
    for (runtime::sim::SimMember* const lane : lanes) {
      computes.push_back(std::make_unique<runtime::sim::SimCompute>(
          *lane, runtime::sim::SimCompute::Speeds{.sum_bytes_per_second = 5e9, .flops_per_second = 2e10}));
      options.share.lane = parts.size();
      auto session = session::EngineSession::create(*lane, *lane, *computes.back(), options).value();
      schedulers.push_back(&session->scheduler());
      parts.push_back({lane, [](const runtime::Task& task) { task(); }, std::move(session)});
    }
    if (lanes.size() == 1) return std::move(parts.front().engine);
    return std::make_unique<session::LanedEngine>(job.script.model, options.share.deal, std::move(parts));
  }

  std::size_t in_flight_max() const { return budget ? budget->bytes_in_flight_max() : schedulers.front()->bytes_in_flight_max(); }

  std::vector<std::unique_ptr<runtime::sim::SimCompute>> computes;
  std::shared_ptr<session::LinkBudget> budget;      // with several lanes
  std::vector<session::SendScheduler*> schedulers;  // by lane
  std::vector<std::vector<float>> values;
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
    world.add(member);
    for (std::size_t lane = 1; lane < job.deal.lanes; ++lane) world.add_lane(member);
    for (runtime::sim::SimMember* const lane : lanes_of(world, member, job.deal.lanes)) {
      lane->set_listener({.on_down = [&](Member, const Error& why) { on_trouble(why.message); }});
    }
  }
  for (std::size_t a = 0; a < workers; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      for (runtime::sim::SimMember* const lane : lanes_of(world, members[a], job.deal.lanes)) {
        lane->connect(members[b], {}, std::chrono::seconds(1));
      }
    }
  }
  world.run_for(4 * job.world.latency + std::chrono::milliseconds(1));  // all links are up
  std::vector<std::unique_ptr<Crew>> crew;
  for (std::size_t rank = 0; rank < workers; ++rank) {
    crew.push_back(std::make_unique<Crew>(job, lanes_of(world, members[rank], job.deal.lanes), rank, members));
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
    result.in_flight_max = std::max(result.in_flight_max, crew[rank]->in_flight_max());
    std::uint64_t sent = 0;
    for (const runtime::sim::SimMember* const lane : lanes_of(world, members[rank], job.deal.lanes)) {
      for (const Member peer : members) sent += lane->link_bytes(peer).sent;
    }
    result.link_bytes_sent.push_back(sent);
  }
  return result;
}

}  // namespace poseidon::test
