#include "plan/bound.h"

#include <algorithm>

#include "plan/search.h"

namespace poseidon::plan {
namespace {


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
  std::vector<std::size_t> counts;
  for (const std::vector<SchemeCost>& costs : options) counts.push_back(costs.size());
  const Choice choice = search(counts, [&](const Choice& c) { return bound(with(c)); });
  BoundAnswer answer;
  answer.layers = with(choice);
  answer.seconds = bound(answer.layers);
  for (std::size_t l = 0; l < options.size(); ++l) answer.schemes.push_back(options[l][choice[l]]);
  return answer;
}

}  // namespace poseidon::plan
