// The frame codec: headers, and tables of small parts that share a frame.
#include <benchmark/benchmark.h>

#include <vector>

#include "wire/frame.h"

namespace poseidon {
namespace {

wire::FrameHeader header_of_a_piece() {
  wire::FrameHeader header;
  header.job = 77;
  header.epoch = Epoch{1};
  header.sender = Member{3};
  header.credit = 65'536;
  header.part = {.type = wire::FrameType::kPush, .tensor = TensorId{12}, .iteration = 900, .offset = 1 << 20, .bytes = 65'536,
                 .contributors = 1, .samples = 32};
  return header;
}

void frame_encode_header(benchmark::State& state) {
  wire::FrameHeader header = header_of_a_piece();
  for (auto _ : state) {
    ++header.part.iteration;
    benchmark::DoNotOptimize(wire::encode_header(header));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(frame_encode_header)->Name("frame/encode_header");

void frame_decode_header(benchmark::State& state) {
  const auto bytes = wire::encode_header(header_of_a_piece());
  for (auto _ : state) benchmark::DoNotOptimize(wire::decode_header(bytes));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(frame_decode_header)->Name("frame/decode_header");

struct Fused {
  explicit Fused(std::size_t count) : header(header_of_a_piece()) {
    for (std::size_t i = 0; i < count; ++i) {
      parts.push_back({.type = wire::FrameType::kSum, .tensor = TensorId{static_cast<std::uint32_t>(i)}, .iteration = 900, .bytes = 256});
    }
    header.part = {.type = wire::FrameType::kFused, .bytes = static_cast<std::uint32_t>(count * (wire::kPartBytes + 256)),
                   .contributors = static_cast<std::uint32_t>(count)};
  }
  wire::FrameHeader header;
  std::vector<wire::PartHeader> parts;
};

void frame_encode_parts(benchmark::State& state) {
  const Fused fused(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(wire::encode_parts(fused.parts));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(frame_encode_parts)->Name("frame/encode_parts")->Arg(16)->Arg(256);

void frame_decode_parts(benchmark::State& state) {
  const Fused fused(static_cast<std::size_t>(state.range(0)));
  const std::vector<std::byte> table = wire::encode_parts(fused.parts);
  for (auto _ : state) benchmark::DoNotOptimize(wire::decode_parts(fused.header, table));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(frame_decode_parts)->Name("frame/decode_parts")->Arg(16)->Arg(256);

}  // namespace
}  // namespace poseidon
