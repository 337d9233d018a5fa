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
// Beyond so many servers a tensor's P-th part is often too small to be sent by itself.
constexpr std::size_t kFewServersMax = 64;
// Of the first round: P of these are what the next forward pass wants first. A header is 1.6 % of one.
constexpr std::size_t kSectionBytesMin = 4 * 1024;

std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The i-th of n nearly equal parts of `total`: total * i / n, which may be too large to be formed.
std::size_t part_begin(std::size_t total, std::size_t i, std::size_t n) { return total / n * i + total % n * i / n; }

// How many chunks a tensor is cut into among so few servers that each can have its share: a multiple of `servers`, or one.
std::size_t chunk_count(std::size_t bytes, std::size_t servers) {
  if (servers > 1 && bytes < servers * kChunkBytesMin) return 1;
  return servers * divide_up(bytes, servers * kChunkBytes);
}

// Cuts a tensor into `count` equal chunks, dealt round robin.
std::vector<Chunk> cut(std::size_t bytes, std::size_t count, std::size_t servers, std::size_t first_server) {
  const std::size_t size = divide_up(divide_up(bytes, count), kAlignment) * kAlignment;
  std::vector<Chunk> chunks;
  for (std::size_t begin = 0; begin < bytes; begin += size) {
    const Rank server{static_cast<std::int32_t>((first_server + chunks.size()) % servers)};
    chunks.push_back({begin, std::min(bytes, begin + size), server});
  }
  return chunks;
}

// Tensors one by one: each is cut over all servers, or goes whole to the one that has the least to do at the time.
std::vector<std::vector<Chunk>> cut_each(const Model& model, const Plan& plan, std::size_t servers) {
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
      const std::size_t count = chunk_count(bytes, servers);
      if (count > 1 || servers == 1) {
        chunks[index(tensor)] = cut(bytes, count, servers, cut_tensors++ % servers);
      } else {
        const std::size_t server = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
        load[server] += static_cast<double>(bytes);
        chunks[index(tensor)] = {{0, bytes, Rank{static_cast<std::int32_t>(server)}}};
      }
    }
  }
  return chunks;
}

// Where the line of all dense tensors, `bytes` long, is cut: the ends of its sections. In each round every server has one, and those
// of a round are twice as long as those of the round before, up to 1 MiB.
std::vector<std::size_t> section_ends(std::size_t bytes, std::size_t servers) {
  std::vector<std::size_t> lengths;  // of each round's sections, relative to each other
  std::size_t all = 0;
  while (lengths.empty() || all < bytes) {
    lengths.push_back(lengths.empty() ? kSectionBytesMin : std::min(kChunkBytes, 2 * lengths.back()));
    all += servers * lengths.back();
  }
  // Less than a round is not spread over all servers.
  if (lengths.size() == 1) all = divide_up(bytes, kSectionBytesMin) * kSectionBytesMin;
  std::vector<std::size_t> ends;
  std::size_t passed = 0;
  for (const std::size_t length : lengths) {
    for (std::size_t server = 0; server < servers && passed < all; ++server) {
      passed += length;
      ends.push_back(part_begin(bytes, passed, all));
    }
  }
  return ends;
}

// The tensors laid one behind the other, and the line cut wherever a section ends. Section i is server i mod P's.
std::vector<std::vector<Chunk>> cut_line(const Model& model, const Plan& plan, std::size_t servers) {
  std::vector<std::vector<Chunk>> chunks(model.tensors.size());
  std::vector<TensorId> line;
  std::size_t total = 0;
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    if (plan.layers[l].scheme != Scheme::kPs) continue;
    for (const TensorId tensor : model.layers[l].tensors) {
      line.push_back(tensor);
      total += model.tensors[index(tensor)].bytes();
    }
  }
  if (total == 0) return chunks;
  const std::vector<std::size_t> ends = section_ends(total, servers);
  std::size_t section = 0;
  std::size_t start = 0;  // of the tensor, on the line
  for (const TensorId tensor : line) {
    const std::size_t bytes = model.tensors[index(tensor)].bytes();
    std::size_t begin = 0;
    while (begin < bytes) {
      // Ends that lie in the tensor move to a multiple of the alignment; sections do not drift, since each is cut from its own end.
      while (section + 1 < ends.size() && ends[section] <= start + begin) ++section;
      const std::size_t inside = ends[section] - start;
      const std::size_t end = std::min(bytes, divide_up(inside, kAlignment) * kAlignment);
      chunks[index(tensor)].push_back({begin, end, Rank{static_cast<std::int32_t>(section % servers)}});
      begin = end;
    }
    start += bytes;
  }
  return chunks;
}

}  // namespace

std::vector<std::vector<Chunk>> partition(const Model& model, const Plan& plan) {
  const std::size_t servers = static_cast<std::size_t>(plan.workers);
  return servers <= kFewServersMax ? cut_each(model, plan, servers) : cut_line(model, plan, servers);
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
