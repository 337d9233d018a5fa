#include "plan/bound.h"

#include <algorithm>
#include <array>
#include <functional>

namespace poseidon::plan {
namespace {

// All combinations of three schemes for so many layers: 729 bounds of a few hundred layers each.
constexpr std::size_t kExhaustiveLayersMax = 6;

// One choice of scheme for each trained layer, as indices into its options.
using Choice = std::vector<std::size_t>;

class Search {
 public:
  Search(const std::vector<std::vector<SchemeCost>>& options, std::function<double(const Choice&)> time_of)
      : options_(options), time_of_(std::move(time_of)), best_(options.size(), 0) {
    for (std::size_t l = 0; l < options.size(); ++l) {
      if (options[l].size() > 1) free_.push_back(l);
    }
    best_time_ = time_of_(best_);
  }

  Choice run() {
    if (free_.size() <= kExhaustiveLayersMax) {
      Choice choice(options_.size(), 0);
      try_all(choice, 0);
    } else {
      for (std::size_t start = 0; start < 3; ++start) descend(start);
    }
    return best_;
  }

 private:
  void consider(const Choice& choice, double time) {
    // A hair's breadth of difference is rounding, and the simpler scheme stands.
    if (time >= best_time_ * (1 - 1e-12)) return;
    best_time_ = time;
    best_ = choice;
  }

  void try_all(Choice& choice, std::size_t next) {
    if (next == free_.size()) return consider(choice, time_of_(choice));
    for (std::size_t option = 0; option < options_[free_[next]].size(); ++option) {
      choice[free_[next]] = option;
      try_all(choice, next + 1);
    }
    choice[free_[next]] = 0;
  }

  // Moves of one layer or of two neighbours at once, as long as they gain: one layer's bytes often pay only together with the
  // next one's.
  void descend(std::size_t start) {
    Choice now(options_.size(), 0);
    for (const std::size_t l : free_) now[l] = std::min(start, options_[l].size() - 1);
    double least = time_of_(now);
    for (bool better = true; better;) {
      better = false;
      const auto attempt = [&](const Choice& trial) {
        const double time = time_of_(trial);
        if (time >= least - 1e-9) return;
        least = time;
        now = trial;
        better = true;
      };
      for (std::size_t i = 0; i < free_.size(); ++i) {
        for (std::size_t a = 0; a < options_[free_[i]].size(); ++a) {
          Choice trial = now;
          trial[free_[i]] = a;
          attempt(trial);
          if (i + 1 == free_.size()) continue;
          for (std::size_t b = 0; b < options_[free_[i + 1]].size(); ++b) {
            trial[free_[i + 1]] = b;
            attempt(trial);
          }
        }
      }
    }
    consider(now, least);
  }

  const std::vector<std::vector<SchemeCost>>& options_;
  std::function<double(const Choice&)> time_of_;
  std::vector<std::size_t> free_;
  Choice best_;
  double best_time_ = 0;
};

}  // namespace

double bound(std::span<const LayerTimes> layers) {
  double least = 0;
  double computing = 0;
  for (const LayerTimes& layer : layers) {
    least += layer.forward + layer.backward + layer.rebuild;
    computing += layer.forward + layer.backward;
  }
  double link = 0;
  for (const LayerTimes& layer : layers) {
    link += layer.link;
    least = std::max(least, computing + link);
    computing -= layer.forward + layer.backward;
  }
  return least;
}

double bound_within_backward(std::span<const LayerTimes> layers) {
  double forward = 0;
  double computing = 0;
  double rebuild = 0;
  for (const LayerTimes& layer : layers) {
    forward += layer.forward;
    computing += layer.backward;
    rebuild += layer.rebuild;
  }
  double least = computing + rebuild;
  double link = 0;
  for (const LayerTimes& layer : layers) {
    link += layer.link;
    least = std::max(least, computing + link);
    computing -= layer.backward;
  }
  return forward + least;
}

double bound_without_overlap(std::span<const LayerTimes> layers) {
  double sum = 0;
  for (const LayerTimes& layer : layers) sum += layer.forward + layer.backward + layer.link + layer.rebuild;
  return sum;
}

SchemeCost dense_cost(std::uint64_t numbers, int workers, const Serving& serving, DType wire) {
  // By links of one byte a second: what the busiest carries.
  const double carried = server_shares(workers, serving.servers, serving.colocated).seconds_per_byte;
  return {Scheme::kPs, {}, static_cast<double>(bytes_of(wire)) * carried * static_cast<double>(numbers), 0};
}

std::vector<SchemeCost> scheme_costs(const LayerSize& layer, int workers, const Serving& serving, DType wire) {
  const double width = static_cast<double>(bytes_of(wire));
  const double p = workers;
  const double m = static_cast<double>(layer.rows);
  const double n = static_cast<double>(layer.cols);
  const double k = static_cast<double>(layer.batch);
  const std::uint64_t bias = layer.bias ? layer.rows : 0;
  std::vector<SchemeCost> costs = {dense_cost(layer.rows * layer.cols + bias, workers, serving, wire)};
  if (workers == 1) return costs;
  costs.push_back({Scheme::kSfb, {}, width * (p - 1) * k * (m + n), (p - 1) * 2 * k * m * n});
  const Grid grid = best_grid(m, n, workers);
  if (grid.rows > 0) {
    const double numbers = (p - 1) * (k * (m / grid.rows + n / grid.cols) + (m * n + static_cast<double>(bias)) / p);
    costs.push_back({Scheme::kBlock, grid, width * numbers, 0});
  }
  return costs;
}

BoundAnswer least_time(const BoundQuestion& question) {
  const ModelDescription& description = *question.description;
  const DescribedModel described = model_of(description, question.batch);
  const double flops_per_second = description.flops() * question.samples_per_second;
  const double batch = static_cast<double>(question.batch);
  std::vector<LayerTimes> times;
  for (const DescribedLayer& layer : description.layers) {
    times.push_back({batch * layer.forward_flops / flops_per_second, batch * layer.backward_flops / flops_per_second, 0, 0});
  }
  std::vector<std::vector<SchemeCost>> options;
  for (const LayerSpec& layer : described.model.layers) {
    if (const std::optional<LayerSize> size = factor_size(described.model, layer)) {
      std::vector<SchemeCost> costs = scheme_costs(*size, question.workers, question.serving, question.wire);
      if (question.scheme) {
        const auto wanted = std::find_if(costs.begin(), costs.end(), [&](const SchemeCost& c) { return c.scheme == *question.scheme; });
        costs = {wanted == costs.end() ? costs.front() : *wanted};
      }
      options.push_back(std::move(costs));
      continue;
    }
    std::uint64_t numbers = 0;
    for (const TensorId tensor : layer.tensors) numbers += described.model.tensors[index(tensor)].elements();
    options.push_back({dense_cost(numbers, question.workers, question.serving, question.wire)});
  }
  const auto with = [&](const Choice& choice) {
    std::vector<LayerTimes> layers = times;
    for (std::size_t l = 0; l < options.size(); ++l) {
      const SchemeCost& cost = options[l][choice[l]];
      layers[described.layer_of[l]].link = cost.bytes / question.link_bytes_per_second;
      layers[described.layer_of[l]].rebuild = cost.flops / flops_per_second;
    }
    return layers;
  };
  const Choice choice = Search(options, [&](const Choice& c) { return bound(with(c)); }).run();
  BoundAnswer answer;
  answer.layers = with(choice);
  answer.seconds = bound(answer.layers);
  for (std::size_t l = 0; l < options.size(); ++l) answer.schemes.push_back(options[l][choice[l]]);
  return answer;
}

}  // namespace poseidon::plan
