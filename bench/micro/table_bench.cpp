// Per-piece book-keeping on the receiving side: the table of sinks, and the staging pool.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "runtime/sink_table.h"
#include "store/staging.h"

namespace poseidon {
namespace {

// A worker names where every sum will land, and then the sums come, piece by piece: 300 tensors from 8 servers each, a chunk of
// `range(0)` pieces.
void sink_table(benchmark::State& state) {
  constexpr std::uint32_t kTensors = 300;
  constexpr std::uint32_t kServers = 8;
  const auto pieces = static_cast<std::uint64_t>(state.range(0));
  const std::uint64_t chunk = pieces * wire::kPieceBytes;
  runtime::SinkTable table;
  std::uint64_t landed = 0;
  Iteration iteration = 0;
  for (auto _ : state) {
    for (std::uint32_t t = 0; t < kTensors; ++t) {
      for (std::uint32_t s = 0; s < kServers; ++s) {
        table.expect(Member{s}, {wire::FrameType::kSum, TensorId{t}, iteration},
                     {s * chunk, (s + 1) * chunk, runtime::Layout::contiguous({nullptr, kServers * chunk, {}, 0}, s * chunk, chunk),
                      [&landed](Member, const wire::PartHeader& part) { landed += part.bytes; }});
      }
    }
    for (std::uint32_t t = 0; t < kTensors; ++t) {
      for (std::uint64_t p = 0; p < pieces; ++p) {
        for (std::uint32_t s = 0; s < kServers; ++s) {
          const wire::PartHeader part{.type = wire::FrameType::kSum, .tensor = TensorId{t}, .iteration = iteration,
                                      .offset = s * chunk + p * wire::kPieceBytes, .bytes = wire::kPieceBytes};
          const Result<runtime::Landing> landing = table.land(Member{s}, part);
          table.landed(Member{s}, *landing);
        }
      }
    }
    ++iteration;
  }
  benchmark::DoNotOptimize(landed);
  state.SetItemsProcessed(state.iterations() * kTensors * kServers * state.range(0));
}
BENCHMARK(sink_table)->Name("sink_table/expect_land")->Arg(1)->Arg(8);

// Takes and gives back blocks of some sizes, 100 at a time in use.
void staging(benchmark::State& state) {
  constexpr std::size_t kInUse = 100;
  store::StagingPool pool;
  std::vector<std::byte*> blocks(kInUse, nullptr);
  const std::size_t sizes[] = {wire::kPieceBytes, wire::kPieceBytes, 14'464, wire::kPieceBytes, 320};
  for (std::size_t i = 0; i < kInUse; ++i) blocks[i] = pool.acquire(sizes[i % std::size(sizes)]);
  std::size_t at = 0;
  for (auto _ : state) {
    pool.release(blocks[at]);
    blocks[at] = pool.acquire(sizes[at % std::size(sizes)]);
    at = (at + 1) % kInUse;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(staging)->Name("staging/release_acquire");

}  // namespace
}  // namespace poseidon
