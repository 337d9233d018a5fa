// The simulated world: events per second of bare tasks and timers, and frames per second between members.
#include <benchmark/benchmark.h>

#include <chrono>

#include "runtime/sim/sim_world.h"

namespace poseidon {
namespace {

using namespace std::chrono_literals;

// `range(0)` members, each with 16 tasks that post themselves again at their own random times: the queue stays that long.
void sim_tasks(benchmark::State& state) {
  runtime::sim::SimWorld world({.seed = 1, .task_jitter_max = 100us});
  std::int64_t events = 0;
  const auto members = static_cast<std::uint32_t>(state.range(0));
  struct Chain {
    runtime::sim::SimMember* member;
    std::int64_t* events;
    void operator()() const {
      ++*events;
      member->post(*this);
    }
  };
  for (std::uint32_t m = 0; m < members; ++m) {
    runtime::sim::SimMember& member = world.add(Member{m});
    for (int i = 0; i < 16; ++i) member.post(Chain{&member, &events});
  }
  world.run_for(1ms);
  const std::int64_t before = events;
  for (auto _ : state) world.run_for(100us);
  state.SetItemsProcessed(events - before);
}
BENCHMARK(sim_tasks)->Name("sim/tasks")->Arg(8)->Arg(256);

// Every member answers each frame with one to the next member: as many frames are under way as members.
void sim_frames(benchmark::State& state) {
  runtime::sim::SimWorld world({.seed = 1});
  const auto members = static_cast<std::uint32_t>(state.range(0));
  std::int64_t frames = 0;
  const auto send = [](runtime::sim::SimMember& from, Member to) {
    runtime::Frame frame;
    frame.parts.push_back({.type = wire::FrameType::kPush, .tensor = TensorId{1}, .bytes = 4'096});
    frame.payload.push_back({{nullptr, 4'096, {}, 0}, 0, 4'096});
    from.send({to, runtime::Lane{0}}, std::move(frame), nullptr);
  };
  for (std::uint32_t m = 0; m < members; ++m) world.add(Member{m});
  for (std::uint32_t m = 0; m < members; ++m) {
    runtime::sim::SimMember& member = world.at(Member{m});
    const Member next{(m + 1) % members};
    member.connect(next, {}, 1s);
    member.set_acceptor(wire::FrameType::kPush, [&, next](Member, const wire::PartHeader& part) -> Result<runtime::Sink> {
      return runtime::Sink{0, part.bytes, runtime::Layout::contiguous({nullptr, part.bytes, {}, 0}, 0, part.bytes),
                           [&, next](Member, const wire::PartHeader&) {
                             ++frames;
                             send(member, next);
                           }};
    });
  }
  world.run_for(10ms);
  for (std::uint32_t m = 0; m < members; ++m) send(world.at(Member{m}), Member{(m + 1) % members});
  world.run_for(1ms);
  const std::int64_t before = frames;
  for (auto _ : state) world.run_for(1ms);
  state.SetItemsProcessed(frames - before);
}
BENCHMARK(sim_frames)->Name("sim/frames")->Arg(8)->Arg(256);

}  // namespace
}  // namespace poseidon
