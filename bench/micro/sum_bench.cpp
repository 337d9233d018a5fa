// A server's sums: bytes of addends read per second, for each set of loops, type, number of addends and place of the arrays.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "runtime/sum_kernels.h"
#include "wire/frame.h"

namespace poseidon {
namespace {

// Arrays of one piece each stay in the second-level cache; arrays of 16 MiB, walked through piece by piece, come from memory.
constexpr std::size_t kInCache = wire::kPieceBytes;
constexpr std::size_t kInMemory = std::size_t{16} << 20;

void sum_pieces(benchmark::State& state, const runtime::SumKernels& kernels, DType dtype, std::size_t addends,
                std::size_t array_bytes) {
  std::vector<base::AlignedBytes> arrays;
  for (std::size_t k = 0; k < addends + 1; ++k) {
    arrays.push_back(base::make_aligned(array_bytes));
    std::memset(arrays.back().get(), 0, array_bytes);  // also makes the pages
  }
  const runtime::SumKernel kernel = kernels.of(dtype);
  std::vector<const std::byte*> pieces(addends);
  std::size_t at = 0;
  for (auto _ : state) {
    for (std::size_t k = 0; k < addends; ++k) pieces[k] = arrays[k].get() + at;
    // As the store does: into a slot, and over the addend of this process.
    kernel({pieces, wire::kPieceBytes / bytes_of(dtype), arrays[addends].get() + at, arrays[0].get() + at});
    at = (at + wire::kPieceBytes) % array_bytes;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(addends * wire::kPieceBytes));
}

const bool kRegistered = [] {
  for (const runtime::SumKernels& kernels : runtime::sum_kernels_here()) {
    for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
      for (const std::size_t addends : {2, 4, 8}) {
        for (const std::size_t array_bytes : {kInCache, kInMemory}) {
          const std::string name = "sum/" + std::string(kernels.name) + "/" + std::string(to_string(dtype)) + "/" +
                                   std::to_string(addends) + (array_bytes == kInCache ? "/cache" : "/memory");
          benchmark::RegisterBenchmark(name.c_str(), [&kernels, dtype, addends, array_bytes](benchmark::State& state) {
            sum_pieces(state, kernels, dtype, addends, array_bytes);
          });
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace poseidon
