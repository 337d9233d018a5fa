#include "plan/lanes.h"

#include <algorithm>

#include "base/check.h"
#include "plan/cost_model.h"

namespace poseidon::plan {
namespace {

// Bytes that each lane of each server has been given, fading with the distance in layers: what lies far apart in the forward pass
// does not travel at the same time. Halving is exact, so all processors deal alike.
class Load {
 public:
  Load(std::size_t servers, std::size_t lanes) : bytes_(servers, std::vector<double>(lanes, 0)) {}

  void next_layer() {
    for (std::vector<double>& server : bytes_) {
      for (double& bytes : server) bytes /= 2;
    }
  }
  void add(std::size_t server, std::size_t lane, double bytes) { bytes_[server][lane] += bytes; }
  void add_everywhere(std::size_t lane, double bytes) {
    for (std::vector<double>& server : bytes_) server[lane] += bytes;
  }

  // Among equals each server begins with a lane of its own, so that first chunks do not all meet on lane 0.
  std::size_t least_of(std::size_t server) const { return least(bytes_[server], server); }
  // Summed over the servers that `counts`.
  template <typename Counts>
  std::size_t least_of_all(Counts counts) const {
    std::vector<double> sums(bytes_.front().size(), 0);
    for (std::size_t server = 0; server < bytes_.size(); ++server) {
      for (std::size_t lane = 0; lane < sums.size() && counts(server); ++lane) sums[lane] += bytes_[server][lane];
    }
    return least(sums, 0);
  }

 private:
  static std::size_t least(const std::vector<double>& bytes, std::size_t first) {
    std::size_t best = first % bytes.size();
    for (std::size_t step = 1; step < bytes.size(); ++step) {
      const std::size_t lane = (first + step) % bytes.size();
      if (bytes[lane] < bytes[best]) best = lane;
    }
    return best;
  }

  std::vector<std::vector<double>> bytes_;  // by server, by lane
};

std::size_t server_of(const Chunk& chunk) { return static_cast<std::size_t>(index(chunk.server)); }

std::size_t servers_of(const std::vector<std::vector<Chunk>>& chunks, const Plan& plan) {
  std::size_t servers = static_cast<std::size_t>(plan.workers);
  for (const std::vector<Chunk>& tensor : chunks) {
    for (const Chunk& chunk : tensor) servers = std::max(servers, server_of(chunk) + 1);
  }
  return servers;
}

// A factor layer's traffic as that of a dense tensor which moves as much: all members together send 2 (P - 1) times a dense
// tensor, of which each server holds 1 / P.
double bytes_of_each_server(const Model& model, const LayerSpec& layer, const LayerPlan& plan, int workers) {
  const std::optional<LayerSize> size = factor_size(model, layer);
  if (!size || workers == 1) return 0;
  const auto numbers = static_cast<double>(numbers_sent_in_all(plan.scheme, *size, workers, plan.grid));
  return numbers * static_cast<double>(bytes_of(model.tensors[index(layer.tensors[0])].dtype)) / (2.0 * (workers - 1) * workers);
}

}  // namespace

LaneDeal::LaneDeal(const Model& model, const Plan& plan, const LaneDealOptions& options)
    : lanes_(options.lanes), chunks_(partition(model, plan)), lane_of_chunk_(model.tensors.size()),
      lanes_of_(model.tensors.size(), std::vector<std::size_t>{0}) {
  POSEIDON_CHECK(lanes_ >= 1 && lanes_ <= kLanesMax, lanes_, " lanes");
  Load load(servers_of(chunks_, plan), lanes_);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const LayerSpec& layer = model.layers[l];
    load.next_layer();
    if (plan.layers[l].scheme != Scheme::kPs) {
      const std::size_t lane = load.least_of_all([](std::size_t) { return true; });
      load.add_everywhere(lane, bytes_of_each_server(model, layer, plan.layers[l], plan.workers));
      for (const TensorId tensor : layer.tensors) lanes_of_[index(tensor)] = {lane};
      continue;
    }
    for (const TensorId tensor : layer.tensors) {
      const std::vector<Chunk>& chunks = chunks_[index(tensor)];
      if (chunks.empty()) continue;
      const bool whole = chunks.back().end <= options.whole_bytes_max;
      const std::size_t one_lane = load.least_of_all([&](std::size_t server) {
        return std::any_of(chunks.begin(), chunks.end(), [&](const Chunk& chunk) { return server_of(chunk) == server; });
      });
      std::vector<std::size_t>& lanes = lane_of_chunk_[index(tensor)];
      for (const Chunk& chunk : chunks) {
        lanes.push_back(whole ? one_lane : load.least_of(server_of(chunk)));
        load.add(server_of(chunk), lanes.back(), static_cast<double>(chunk.end - chunk.begin));
      }
      std::vector<std::size_t>& distinct = lanes_of_[index(tensor)];
      distinct = lanes;
      std::sort(distinct.begin(), distinct.end());
      distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    }
  }
}

std::vector<std::vector<Chunk>> LaneDeal::chunks_of(std::size_t lane) const {
  std::vector<std::vector<Chunk>> mine(chunks_.size());
  for (std::size_t t = 0; t < chunks_.size(); ++t) {
    for (std::size_t c = 0; c < chunks_[t].size(); ++c) {
      if (lane_of_chunk_[t][c] == lane) mine[t].push_back(chunks_[t][c]);
    }
  }
  return mine;
}

bool LaneDeal::lives_on(TensorId tensor, std::size_t lane) const {
  const std::vector<std::size_t>& lanes = lanes_of(tensor);
  return std::binary_search(lanes.begin(), lanes.end(), lane);
}

}  // namespace poseidon::plan
