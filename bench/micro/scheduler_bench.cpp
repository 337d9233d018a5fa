// The send scheduler against a network that costs nothing: frames per second, from enqueue() until the last credit is back.
#include <benchmark/benchmark.h>

#include "lane_bench.h"
#include "session/send_scheduler.h"

namespace poseidon {
namespace {

// Each iteration of training sends every tensor to every peer, the last layer first, as a backward pass does. `bytes` is what
// one peer gets of one tensor.
void send_all(benchmark::State& state, std::size_t bytes) {
  const auto peers = static_cast<std::uint32_t>(state.range(0));
  const auto tensors = static_cast<std::uint32_t>(state.range(1));
  bench::FreeLane lane;
  session::SendScheduler scheduler(lane, lane, {.window_bytes = 1 << 20, .tensors = tensors});
  // Size-only: the scheduler never looks at contents.
  const runtime::Region memory{nullptr, bytes, {}, 0};
  Iteration iteration = 0;
  for (auto _ : state) {
    for (std::uint32_t tensor = tensors; tensor-- > 0;) {
      for (std::uint32_t peer = 1; peer <= peers; ++peer) {
        scheduler.enqueue({.to = Member{peer},
                           .priority = {iteration, tensor, runtime::SendClass::kPush},
                           .part = {.type = wire::FrameType::kPush, .tensor = TensorId{tensor}, .iteration = iteration},
                           .begin = 0,
                           .source = runtime::Layout::contiguous(memory, 0, bytes),
                           .hold = nullptr,
                           .on_sent = nullptr});
      }
    }
    lane.run_to_end();
    ++iteration;
  }
  state.SetItemsProcessed(lane.frames());
}

// Four pieces a message: the usual case of a large tensor.
void scheduler_large(benchmark::State& state) { send_all(state, 4 * wire::kPieceBytes); }
BENCHMARK(scheduler_large)->Name("scheduler/large")->Args({7, 60})->Args({31, 60})->Args({255, 8})->Args({1023, 4});

// Small messages that share frames.
void scheduler_small(benchmark::State& state) { send_all(state, 1'000); }
BENCHMARK(scheduler_small)->Name("scheduler/small")->Args({7, 300})->Args({31, 300})->Args({1023, 8});

}  // namespace
}  // namespace poseidon
