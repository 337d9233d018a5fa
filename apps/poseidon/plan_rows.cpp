#include "apps/poseidon/plan_rows.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/text.h"

namespace poseidon::app {
namespace {

// The description's layers that train something, in the order of the plan's.
std::vector<const plan::DescribedLayer*> trained_layers(const replay::Workload& workload) {
  std::vector<const plan::DescribedLayer*> layers;
  for (const plan::DescribedLayer& layer : workload.description.layers) {
    if (!layer.parameters.empty()) layers.push_back(&layer);
  }
  return layers;
}

std::string scheme_text(const plan::LayerPlan& layer) {
  std::string text(to_string(layer.scheme));
  if (layer.scheme == Scheme::kBlock) text += base::concat(" ", layer.grid.rows, "x", layer.grid.cols);
  return text;
}

nlohmann::ordered_json row_json(const PlanRow& row, const replay::Workload& workload) {
  nlohmann::ordered_json j = {{"model", workload.description.name},
                              {"batch", workload.batch},
                              {"samples_per_second", workload.samples_per_second},
                              {"nodes", row.nodes},
                              {"servers", row.serving.servers},
                              {"bandwidth", row.bandwidth},
                              {"overlap", row.schedule.overlap},
                              {"priorities", !row.schedule.no_priorities},
                              {"iteration_seconds", row.iteration_seconds()},
                              {"speedup", row.speedup()},
                              {"bound_seconds", row.prospect.bound_seconds},
                              {"fraction_of_bound", row.fraction_of_bound()},
                              {"waited_seconds", row.result.waited_seconds},
                              {"waited_for", row.result.waited_for},
                              {"device_busy", row.result.device_busy},
                              {"link_sent", row.result.link_sent},
                              {"link_received", row.result.link_received},
                              {"limit", row.limit()},
                              {"layers", nlohmann::ordered_json::array()}};
  if (row.prospect.plan.wire) j["wire"] = to_string(*row.prospect.plan.wire);
  const std::vector<const plan::DescribedLayer*> described = trained_layers(workload);
  for (std::size_t l = 0; l < row.prospect.plan.layers.size(); ++l) {
    const plan::LayerPlan& layer = row.prospect.plan.layers[l];
    nlohmann::ordered_json entry = {{"name", layer.name}, {"scheme", to_string(layer.scheme)}};
    if (layer.scheme == Scheme::kBlock) entry["grid"] = {layer.grid.rows, layer.grid.cols};
    entry["forward_seconds"] = workload.forward_seconds(*described[l]);
    entry["backward_seconds"] = workload.backward_seconds(*described[l]);
    entry["link_seconds"] = row.prospect.link_seconds[l];
    entry["queued_seconds"] = row.result.layers[l].queued;
    entry["synced_seconds"] = row.result.layers[l].synced;
    j["layers"].push_back(std::move(entry));
  }
  return j;
}

}  // namespace

std::string PlanRow::nodes_text() const {
  return serving.servers == 0 ? std::to_string(nodes) : base::concat(nodes, " + ", serving.servers);
}

double PlanRow::iteration_seconds() const {
  // Nothing disturbs an iteration in virtual time, so none is an outlier: where long and short ones alternate the mean is what training gets.
  const std::vector<double>& seconds = result.iteration_seconds;
  return std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
}

double PlanRow::link_used() const { return std::max(result.link_sent, result.link_received); }

std::string PlanRow::limit() const {
  // Products of factors are computing too, but not what one node alone would do.
  const bool rebuilds = alone_seconds < 0.97 * iteration_seconds();
  if (result.device_busy > 0.97) return rebuilds ? "rebuilding" : "computing";
  if (link_used() > 0.9) return "the link";
  return result.waited_for.empty() ? "computing" : base::concat("waiting for ", result.waited_for);
}

void print_heading(const replay::Workload& workload) {
  std::printf("%s: %llu parameters, batches of %lld, %.4g s an iteration on one node\n%6s %10s %12s %9s %12s %9s %10s   %s\n",
              workload.description.name.c_str(), static_cast<unsigned long long>(workload.description.parameters()),
              static_cast<long long>(workload.batch), workload.iteration_seconds(), "nodes", "link", "iteration", "speed-up",
              "least time", "of it", "link used", "limited by");
}

void print_row(const PlanRow& row) {
  std::printf("%6s %10s %10.4g s %9.2f %10.4g s %7.1f %% %8.1f %%   %s\n", row.nodes_text().c_str(), row.bandwidth.c_str(), row.iteration_seconds(),
              row.speedup(), row.prospect.bound_seconds, 100 * row.fraction_of_bound(), 100 * row.link_used(), row.limit().c_str());
  std::fflush(stdout);
}

void print_layers(const PlanRow& row, const replay::Workload& workload) {
  std::printf("\n%s nodes, %s; milliseconds, the last two after the iteration began\n%-24s %-12s %10s %10s %12s %12s %12s\n",
              row.nodes_text().c_str(),
              row.bandwidth.c_str(), "layer", "scheme", "forward", "backward", "on the link", "queued", "sum is in");
  const std::vector<const plan::DescribedLayer*> described = trained_layers(workload);
  for (std::size_t l = 0; l < row.prospect.plan.layers.size(); ++l) {
    const plan::LayerPlan& layer = row.prospect.plan.layers[l];
    std::printf("%-24s %-12s %10.3f %10.3f %12.3f %12.3f %12.3f\n", layer.name.c_str(), scheme_text(layer).c_str(),
                1e3 * workload.forward_seconds(*described[l]), 1e3 * workload.backward_seconds(*described[l]),
                1e3 * row.prospect.link_seconds[l], 1e3 * row.result.layers[l].queued, 1e3 * row.result.layers[l].synced);
  }
}

nlohmann::ordered_json to_json(const std::vector<PlanRow>& rows, const replay::Workload& workload) {
  if (rows.size() == 1) return row_json(rows.front(), workload);
  nlohmann::ordered_json j;
  j["rows"] = nlohmann::ordered_json::array();
  for (const PlanRow& row : rows) j["rows"].push_back(row_json(row, workload));
  return j;
}

}  // namespace poseidon::app
