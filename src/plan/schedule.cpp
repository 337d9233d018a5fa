#include "plan/schedule.h"

#include <algorithm>

#include "base/check.h"
#include "plan/search.h"

namespace poseidon::plan {
namespace {

// What a second of hidden link or device time counts beside one of the iteration: enough to decide between equals, since
// measurements err and hidden work still disturbs; far too little to make an iteration longer.
constexpr double kHiddenWeight = 0.01;

bool is_requested(const SchemeRequest& request, const LayerSpec& layer) {
  return request.all.has_value() || request.by_layer.contains(layer.name);
}

double time_of(const Schedule& schedule, const std::vector<LayerCost>& costs) {
  double computing = 0;
  double rebuild = 0;
  for (std::size_t l = 0; l < costs.size(); ++l) {
    computing += schedule.layers[l].forward + schedule.layers[l].backward;
    rebuild += costs[l].rebuild;
  }
  double least = computing + rebuild;
  double link = 0;
  for (std::size_t l = 0; l < costs.size(); ++l) {
    link += costs[l].link;
    least = std::max(least, computing + link + costs[l].delay);
    computing -= schedule.layers[l].forward + schedule.layers[l].backward;
  }
  return least;
}

}  // namespace

LayerCost layer_cost(const Schedule& schedule, const LayerSpec& layer, const LayerPlan& plan) {
  if (schedule.workers == 1) return {};
  const Speeds& speeds = schedule.speeds;
  const double p = schedule.workers;
  double elements = 0;
  for (const TensorId tensor : layer.tensors) elements += static_cast<double>(schedule.model->tensors[index(tensor)].elements());
  const double width = static_cast<double>(bytes_of(schedule.model->tensors[index(layer.tensors[0])].dtype));
  if (plan.scheme == Scheme::kPs) {
    // Pieces are summed as they come, so the slower of link and sums sets the pace.
    const double for_each_byte = schedule.dense_seconds_per_byte.value_or(2 * (p - 1) / p / speeds.link_bytes_per_second);
    const double link = for_each_byte * elements * width;
    return {std::max(link, elements * width / speeds.sum_bytes_per_second), 0, 2 * speeds.latency_seconds};
  }
  const std::optional<LayerSize> size = factor_size(*schedule.model, layer);
  POSEIDON_CHECK(size, "layer ", layer.name, " has no factors");
  const double m = static_cast<double>(size->rows);
  const double n = static_cast<double>(size->cols);
  const double k = static_cast<double>(size->batch);
  const double repeated_product = 2 * (p - 1) * k * m * n / speeds.flops_per_second;
  double numbers = 0;
  double rounds = 2;
  double rebuild = 0;
  switch (plan.scheme) {
    case Scheme::kPs:
      break;
    case Scheme::kSfb:
      numbers = (p - 1) * k * (m + n);
      rounds = 1;
      rebuild = repeated_product;
      break;
    case Scheme::kAdam:
      numbers = (p - 1) * (k * (m + n) + elements);
      rebuild = repeated_product;
      break;
    case Scheme::kBlock:
      numbers = (p - 1) * (k * (m / plan.grid.rows + n / plan.grid.cols) + elements / p);
      break;
  }
  return {numbers * width / speeds.link_bytes_per_second, rebuild, rounds * speeds.latency_seconds + rebuild};
}

double iteration_seconds(const Schedule& schedule, const Plan& plan) {
  POSEIDON_CHECK(plan.layers.size() == schedule.layers.size(), "a plan of ", plan.layers.size(), " layers, times of ",
                 schedule.layers.size());
  std::vector<LayerCost> costs;
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    costs.push_back(layer_cost(schedule, schedule.model->layers[l], plan.layers[l]));
  }
  return time_of(schedule, costs);
}

Plan best_plan(const Schedule& schedule, const SchemeRequest& request, bool alike, const Plan& present) {
  std::vector<std::vector<std::pair<LayerPlan, LayerCost>>> options;
  std::vector<std::size_t> counts;
  for (std::size_t l = 0; l < schedule.model->layers.size(); ++l) {
    const LayerSpec& layer = schedule.model->layers[l];
    auto& own = options.emplace_back();
    const auto offer = [&](const LayerPlan& plan) { own.emplace_back(plan, layer_cost(schedule, layer, plan)); };
    const std::optional<LayerSize> size = factor_size(*schedule.model, layer);
    if (!size || is_requested(request, layer)) {
      offer(present.layers[l]);
    } else {
      offer({layer.name, Scheme::kPs, {}, Rank{0}});
      if (alike) offer({layer.name, Scheme::kSfb, {}, Rank{0}});
      const Grid grid = best_grid(static_cast<double>(size->rows), static_cast<double>(size->cols), schedule.workers);
      if (grid.rows > 0) offer({layer.name, Scheme::kBlock, grid, Rank{0}});
    }
    counts.push_back(own.size());
  }
  std::vector<LayerCost> costs(options.size());
  const Choice choice = search(counts, [&](const Choice& trial) {
    double hidden = 0;
    for (std::size_t l = 0; l < options.size(); ++l) {
      costs[l] = options[l][trial[l]].second;
      hidden += costs[l].link + costs[l].rebuild;
    }
    return time_of(schedule, costs) + kHiddenWeight * hidden;
  });
  Plan best = present;
  for (std::size_t l = 0; l < options.size(); ++l) best.layers[l] = options[l][choice[l]].first;
  return best;
}

bool has_choice(const Model& model, int workers, const SchemeRequest& request) {
  return workers > 1 && std::any_of(model.layers.begin(), model.layers.end(), [&](const LayerSpec& layer) {
           return factor_size(model, layer) && !is_requested(request, layer);
         });
}

}  // namespace poseidon::plan
