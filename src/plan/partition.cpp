#include "plan/partition.h"

#include <algorithm>
#include <memory>

#include "base/check.h"

namespace poseidon::plan {
namespace {

// Large enough that per-chunk bookkeeping is nothing, small enough that a server's first chunk of a tensor is complete, and
// on its way back, long before the last has been pushed.
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
// Where servers have different shares: the smaller the chunk, the closer each server's part is to its share. Four pieces.
constexpr std::size_t kSharedChunkBytes = kChunkBytes / 4;
constexpr std::size_t kChunkBytesMin = 16 * 1024;
constexpr std::size_t kAlignment = 64;  // a cache line, and a multiple of every element

std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The i-th of n nearly equal parts of `total`.
std::size_t part_begin(std::size_t total, std::size_t i, std::size_t n) { return total * i / n; }

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
  explicit EqualDealer(std::size_t servers) : load_(servers, 0) {}

  std::size_t servers() const override { return load_.size(); }
  std::size_t chunk_bytes_max() const override { return kChunkBytes; }
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
  std::size_t cut_tensors_ = 0;
  std::vector<double> load_;  // bytes of whole tensors that each server has been given, fading with the distance in layers
};

// Servers with shares: deficit round robin. Whole numbers, and of fractions only such that every processor rounds alike: an
// addition, then a division.
class ShareDealer : public Dealer {
 public:
  explicit ShareDealer(const std::vector<std::uint32_t>& shares) {
    for (std::size_t node = 0; node < shares.size(); ++node) {
      if (shares[node] == 0) continue;
      servers_.push_back({Rank{static_cast<std::int32_t>(node)}, shares[node], 0, 0});
      all_shares_ += shares[node];
    }
  }

  std::size_t servers() const override { return servers_.size(); }
  std::size_t chunk_bytes_max() const override { return kSharedChunkBytes; }
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
  std::vector<Server> servers_;
  std::int64_t all_shares_ = 0;
};

std::unique_ptr<Dealer> dealer_of(const Plan& plan) {
  if (plan.server_shares.empty()) return std::make_unique<EqualDealer>(static_cast<std::size_t>(plan.workers));
  return std::make_unique<ShareDealer>(plan.server_shares);
}

}  // namespace

std::vector<std::vector<Chunk>> partition(const Model& model, const Plan& plan) {
  const std::unique_ptr<Dealer> dealer = dealer_of(plan);
  const std::size_t servers = dealer->servers();
  std::vector<std::vector<Chunk>> chunks(model.tensors.size());
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    if (plan.layers[l].scheme != Scheme::kPs) continue;
    dealer->next_layer();
    for (const TensorId tensor : model.layers[l].tensors) {
      const std::size_t bytes = model.tensors[index(tensor)].bytes();
      if (bytes == 0) continue;
      if (servers == 1 || bytes >= servers * kChunkBytesMin) {
        chunks[index(tensor)] = cut(bytes, servers, dealer->chunk_bytes_max());
        dealer->deal(chunks[index(tensor)]);
      } else {
        chunks[index(tensor)] = {{0, bytes, dealer->whole(bytes)}};
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
