#include "plan/partition.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "base/check.h"

namespace poseidon::plan {
namespace {

// Where servers have different shares: the smaller the chunk, the closer each server's part is to its share.
constexpr std::size_t kSharedChunkDivisor = 4;
constexpr std::size_t kCutBytesMin = 16 * 1024;  // what a tensor has for each server, or it goes whole to one
constexpr std::size_t kAlignment = 64;  // a cache line, and a multiple of every element
// Beyond so many servers a tensor's P-th part is often too small to be sent by itself.
constexpr std::size_t kFewServersMax = 64;
// Of the first round: P of these are what the next forward pass wants first. A header is 1.6 % of one.
constexpr std::size_t kSectionBytesMin = 4 * 1024;

std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The i-th of n nearly equal parts of `total`: total * i / n, which may be too large to be formed.
std::size_t part_begin(std::size_t total, std::size_t i, std::size_t n) { return total / n * i + total % n * i / n; }

// Equal chunks of at most about `chunk_bytes_max`, as many for each server, which nobody owns yet.
std::vector<Chunk> cut(std::size_t bytes, std::size_t servers, std::size_t chunk_bytes_max) {
  const std::size_t count = servers * divide_up(bytes, servers * chunk_bytes_max);
  const std::size_t size = divide_up(divide_up(bytes, count), kAlignment) * kAlignment;
  std::vector<Chunk> chunks;
  for (std::size_t begin = 0; begin < bytes; begin += size) chunks.push_back({begin, std::min(bytes, begin + size), Rank{0}});
  return chunks;
}

// Who owns what, for one plan: deals the tensors of a model in the order of the forward pass.
class Dealer {
 public:
  virtual ~Dealer() = default;
  virtual std::size_t servers() const = 0;
  virtual std::size_t chunk_bytes_max() const = 0;
  // A tensor that is cut.
  virtual void deal(std::vector<Chunk>& chunks) = 0;
  // A tensor that goes whole to one server.
  virtual Rank whole(std::size_t bytes) = 0;
  // The tensors that follow belong to the next layer.
  virtual void next_layer() = 0;
};

// All workers alike: round robin.
class EqualDealer : public Dealer {
 public:
  EqualDealer(std::size_t servers, std::size_t chunk_bytes) : chunk_bytes_(chunk_bytes), load_(servers, 0) {}

  std::size_t servers() const override { return load_.size(); }
  std::size_t chunk_bytes_max() const override { return chunk_bytes_; }
  void deal(std::vector<Chunk>& chunks) override {
    std::size_t server = cut_tensors_++;
    for (Chunk& chunk : chunks) chunk.server = Rank{static_cast<std::int32_t>(server++ % servers())};
  }
  Rank whole(std::size_t bytes) override {
    const auto least = std::min_element(load_.begin(), load_.end());
    *least += static_cast<double>(bytes);
    return Rank{static_cast<std::int32_t>(least - load_.begin())};
  }
  void next_layer() override {
    for (double& bytes : load_) bytes /= 2;
  }

 private:
  const std::size_t chunk_bytes_;
  std::size_t cut_tensors_ = 0;
  std::vector<double> load_;  // bytes of whole tensors that each server has been given, fading with the distance in layers
};

// Servers with shares: deficit round robin. Whole numbers, and of fractions only such that every processor rounds alike: an
// addition, then a division.
class ShareDealer : public Dealer {
 public:
  ShareDealer(const std::vector<std::uint32_t>& shares, std::size_t chunk_bytes) : chunk_bytes_(chunk_bytes) {
    for (std::size_t node = 0; node < shares.size(); ++node) {
      if (shares[node] == 0) continue;
      servers_.push_back({Rank{static_cast<std::int32_t>(node)}, shares[node], 0, 0});
      all_shares_ += shares[node];
    }
  }

  std::size_t servers() const override { return servers_.size(); }
  std::size_t chunk_bytes_max() const override { return chunk_bytes_; }
  void deal(std::vector<Chunk>& chunks) override {
    for (Chunk& chunk : chunks) {
      const auto bytes = static_cast<std::int64_t>(chunk.end - chunk.begin);
      for (Server& server : servers_) server.lacks += server.share * bytes;
      const auto most = std::max_element(servers_.begin(), servers_.end(),
                                         [](const Server& a, const Server& b) { return a.lacks < b.lacks; });
      most->lacks -= all_shares_ * bytes;
      chunk.server = most->node;
    }
  }
  Rank whole(std::size_t bytes) override {
    const auto with = [bytes](const Server& server) {
      return (server.load + static_cast<double>(bytes)) / static_cast<double>(server.share);
    };
    const auto least = std::min_element(servers_.begin(), servers_.end(),
                                        [&](const Server& a, const Server& b) { return with(a) < with(b); });
    least->load += static_cast<double>(bytes);
    return least->node;
  }
  void next_layer() override {
    for (Server& server : servers_) server.load /= 2;
  }

 private:
  struct Server {
    Rank node{0};
    std::int64_t share = 0;
    std::int64_t lacks = 0;  // of its share of all chunks dealt so far: bytes times all_shares_
    double load = 0;         // as in EqualDealer
  };
  const std::size_t chunk_bytes_;
  std::vector<Server> servers_;
  std::int64_t all_shares_ = 0;
};

std::unique_ptr<Dealer> dealer_of(const Plan& plan) {
  if (plan.server_shares.empty()) return std::make_unique<EqualDealer>(static_cast<std::size_t>(plan.workers), plan.chunk_bytes);
  return std::make_unique<ShareDealer>(plan.server_shares, plan.chunk_bytes / kSharedChunkDivisor);
}

// Tensors one by one: each is cut over all servers, or goes whole to the one that has the least to do at the time.
std::vector<std::vector<Chunk>> cut_each(const Model& model, const Plan& plan) {
  const std::unique_ptr<Dealer> dealer = dealer_of(plan);
  const std::size_t servers = dealer->servers();
  std::vector<std::vector<Chunk>> chunks(model.tensors.size());
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    if (plan.layers[l].scheme != Scheme::kPs) continue;
    dealer->next_layer();
    for (const TensorId tensor : model.layers[l].tensors) {
      const std::size_t bytes = model.tensors[index(tensor)].bytes();
      if (bytes == 0) continue;
      if (servers == 1 || bytes >= servers * kCutBytesMin) {
        chunks[index(tensor)] = cut(bytes, servers, dealer->chunk_bytes_max());
        dealer->deal(chunks[index(tensor)]);
      } else {
        chunks[index(tensor)] = {{0, bytes, dealer->whole(bytes)}};
      }
    }
  }
  return chunks;
}

// Who serves, and how much of each round of the line.
struct LineServer {
  Rank node{0};
  std::size_t share_before = 0;  // of all servers before it
  std::size_t share = 0;
};

std::vector<LineServer> line_servers(const Plan& plan) {
  std::vector<LineServer> servers;
  std::size_t before = 0;
  for (int node = 0; node < plan.nodes(); ++node) {
    const std::size_t share = plan.server_shares.empty() ? 1 : plan.server_shares[static_cast<std::size_t>(node)];
    if (share == 0) continue;
    servers.push_back({Rank{node}, before, share});
    before += share;
  }
  return servers;
}

struct Section {
  std::size_t end = 0;  // on the line
  Rank server{0};
};

// How the line of all dense tensors, `bytes` long, is cut. In each round every server has one section, as long as its share says,
// and a round is twice as long as the one before, up to a chunk for each server.
std::vector<Section> section_ends(std::size_t bytes, const std::vector<LineServer>& servers, std::size_t chunk_bytes) {
  const std::size_t shares = servers.back().share_before + servers.back().share;
  std::vector<std::size_t> lengths;  // of each round's sections in the mean, relative to each other, in units of the least
  std::size_t all = 0;
  const std::size_t bytes_in_units = divide_up(bytes, kSectionBytesMin);
  while (all < bytes_in_units) {
    lengths.push_back(lengths.empty() ? 1 : std::min(chunk_bytes / kSectionBytesMin, 2 * lengths.back()));
    all += servers.size() * lengths.back();
  }
  // Less than a round is not spread over all servers.
  const bool is_less = lengths.size() == 1;
  std::vector<Section> sections;
  std::size_t passed = 0;
  for (const std::size_t length : lengths) {
    const std::size_t begin = is_less ? 0 : part_begin(bytes, passed, all);
    passed += servers.size() * length;
    const std::size_t end = is_less ? servers.size() * kSectionBytesMin : part_begin(bytes, passed, all);
    for (const LineServer& server : servers) {
      sections.push_back({begin + part_begin(end - begin, server.share_before + server.share, shares), server.node});
      if (sections.back().end >= bytes) return sections;
    }
  }
  return sections;
}

// The tensors laid one behind the other, and the line cut wherever a section ends.
std::vector<std::vector<Chunk>> cut_line(const Model& model, const Plan& plan, const std::vector<LineServer>& servers) {
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
  const std::vector<Section> sections = section_ends(total, servers, plan.chunk_bytes);
  std::size_t section = 0;
  std::size_t start = 0;  // of the tensor, on the line
  for (const TensorId tensor : line) {
    const std::size_t bytes = model.tensors[index(tensor)].bytes();
    std::size_t begin = 0;
    while (begin < bytes) {
      // Ends that lie in the tensor move to a multiple of the alignment; sections do not drift, since each is cut from its own end.
      while (section + 1 < sections.size() && sections[section].end <= start + begin) ++section;
      const std::size_t inside = sections[section].end - start;
      const std::size_t end = std::min(bytes, divide_up(inside, kAlignment) * kAlignment);
      chunks[index(tensor)].push_back({begin, end, sections[section].server});
      begin = end;
    }
    start += bytes;
  }
  return chunks;
}

}  // namespace

std::uint32_t chunk_bytes_for(double link_bytes_per_second, double latency_seconds) {
  const double bytes = std::clamp(16 * link_bytes_per_second * latency_seconds, double{kChunkBytesLeast}, double{kChunkBytesMost});
  return std::bit_ceil(static_cast<std::uint32_t>(bytes));
}

std::vector<std::vector<Chunk>> partition(const Model& model, const Plan& plan) {
  const std::vector<LineServer> servers = line_servers(plan);
  return servers.size() <= kFewServersMax ? cut_each(model, plan) : cut_line(model, plan, servers);
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
