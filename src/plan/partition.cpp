#include "plan/partition.h"

#include <algorithm>

#include "base/check.h"

namespace poseidon::plan {
namespace {

// Large enough that per-chunk bookkeeping is nothing, small enough that a server's first chunk of a tensor is complete, and
// on its way back, long before the last has been pushed.
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr std::size_t kChunkBytesMin = 16 * 1024;
constexpr std::size_t kAlignment = 64;  // a cache line, and a multiple of every element

std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The i-th of n nearly equal parts of `total`.
std::size_t part_begin(std::size_t total, std::size_t i, std::size_t n) { return total * i / n; }

std::vector<Chunk> cut(std::size_t bytes, std::size_t servers, std::size_t first_server) {
  const std::size_t count = servers * divide_up(bytes, servers * kChunkBytes);
  const std::size_t size = divide_up(divide_up(bytes, count), kAlignment) * kAlignment;
  std::vector<Chunk> chunks;
  for (std::size_t begin = 0; begin < bytes; begin += size) {
    const Rank server{static_cast<std::int32_t>((first_server + chunks.size()) % servers)};
    chunks.push_back({begin, std::min(bytes, begin + size), server});
  }
  return chunks;
}

}  // namespace

std::vector<std::vector<Chunk>> partition(const Model& model, const Plan& plan) {
  const std::size_t servers = static_cast<std::size_t>(plan.workers);
  std::vector<std::vector<Chunk>> chunks(model.tensors.size());
  std::size_t cut_tensors = 0;
  // Bytes of whole tensors that each server has been given, fading with the distance in layers.
  std::vector<double> load(servers, 0);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    if (plan.layers[l].scheme != Scheme::kPs) continue;
    for (double& bytes : load) bytes /= 2;
    for (const TensorId tensor : model.layers[l].tensors) {
      const std::size_t bytes = model.tensors[index(tensor)].bytes();
      if (bytes == 0) continue;
      if (servers == 1) {
        chunks[index(tensor)] = cut(bytes, 1, 0);
      } else if (bytes >= servers * kChunkBytesMin) {
        chunks[index(tensor)] = cut(bytes, servers, cut_tensors++ % servers);
      } else {
        const std::size_t server = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
        load[server] += static_cast<double>(bytes);
        chunks[index(tensor)] = {{0, bytes, Rank{static_cast<std::int32_t>(server)}}};
      }
    }
  }
  return chunks;
}

const Block* FactorPartition::block_of(Rank owner) const {
  const auto found = std::find_if(blocks.begin(), blocks.end(), [&](const Block& block) { return block.owner == owner; });
  return found == blocks.end() ? nullptr : &*found;
}

FactorPartition partition_factors(std::size_t rows, std::size_t cols, const LayerPlan& layer, int workers) {
  FactorPartition partition;
  const auto whole = [&](int owner) { return Block{Rank{owner}, 0, rows, 0, cols, 0, rows}; };
  switch (layer.scheme) {
    case Scheme::kPs:
      break;
    case Scheme::kSfb:
      for (int rank = 0; rank < workers; ++rank) partition.blocks.push_back(whole(rank));
      break;
    case Scheme::kAdam:
      partition.blocks.push_back(whole(index(layer.owner)));
      partition.sends_products = true;
      break;
    case Scheme::kBlock: {
      POSEIDON_CHECK(layer.grid.rows * layer.grid.cols == workers, layer.grid.rows, " x ", layer.grid.cols, " for ", workers);
      const std::size_t pr = static_cast<std::size_t>(layer.grid.rows);
      const std::size_t pc = static_cast<std::size_t>(layer.grid.cols);
      for (std::size_t i = 0; i < pr; ++i) {
        for (std::size_t j = 0; j < pc; ++j) {
          Block block{Rank{static_cast<std::int32_t>(i * pc + j)}, part_begin(rows, i, pr), part_begin(rows, i + 1, pr),
                      part_begin(cols, j, pc), part_begin(cols, j + 1, pc), 0, 0};
          block.bias_begin = block.row_begin + part_begin(block.rows(), j, pc);
          block.bias_end = block.row_begin + part_begin(block.rows(), j + 1, pc);
          partition.blocks.push_back(block);
        }
      }
      partition.sends_products = true;
      break;
    }
  }
  return partition;
}

}  // namespace poseidon::plan
