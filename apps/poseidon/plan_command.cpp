// `poseidon plan`: predicts a cluster by running the engine in virtual time.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/poseidon/command.h"
#include "apps/poseidon/workload_options.h"
#include "base/quantity.h"
#include "base/text.h"
#include "replay/simulated_cluster.h"

namespace poseidon::app {
namespace {

struct PlanOptions {
  WorkloadOptions workload;
  std::vector<int> nodes = {8};
  int servers = 0;
  bool no_colocated = false;
  std::vector<std::string> bandwidths = {"10Gbit"};
  double latency_us = 50;
  int iterations = 3;
  bool layers = false;
  bool as_json = false;
};

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon plan --model examples/models/vgg19.json --images-per-second 35.5 --batch 32 --nodes 8 --bandwidth 10Gbit\n"
    "  poseidon plan --model examples/models/alexnet.json --images-per-second 1421 --batch 128 \\\n"
    "      --nodes 2,4,8,16 --bandwidth 1Gbit,10Gbit\n"
    "  poseidon plan --model examples/models/vgg19-22k.json --images-per-second 34.6 --batch 32 --nodes 8 --scheme ps --json\n"
    "  poseidon plan --model examples/models/alexnet.json --images-per-second 1421 --batch 128 --nodes 8 --servers 4 --scheme ps";

void describe(CLI::App& app, PlanOptions& into) {
  app.name("poseidon plan");
  app.description("Predicts how fast a model trains on a cluster: the engine itself runs in virtual time, with gradients that have\n"
                  "sizes and no contents. Several numbers of nodes or rates give a table of what-ifs.");
  app.footer(kExamples);
  into.workload.describe(app);
  app.add_option("--nodes", into.nodes, "how many, or several numbers")->delimiter(',')->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--servers", into.servers, "dedicated servers besides them, which sum gradients and train nothing")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_flag("--no-colocated", into.no_colocated, "only the dedicated servers serve, and no node that trains does");
  app.add_option("--bandwidth", into.bandwidths, "of each node's link, each direction, as the line is rated; or several")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--latency-us", into.latency_us, "one way, microseconds")->check(CLI::Range(0.0, 1e6))->capture_default_str();
  app.add_option("--iterations", into.iterations, "simulated; the first is not counted")->check(CLI::Range(2, 1000))->capture_default_str();
  app.add_flag("--layers", into.layers, "print each layer's scheme and schedule as well");
  app.add_flag("--json", into.as_json, "print JSON instead of tables");
}

struct Row {
  int nodes = 1;
  plan::Serving serving;
  std::string bandwidth;
  double alone_seconds = 0;
  Prospect prospect;
  replay::SimulationResult result;

  double iteration_seconds() const {
    std::vector<double> sorted = result.iteration_seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  std::string nodes_text() const { return serving.servers == 0 ? std::to_string(nodes) : base::concat(nodes, " + ", serving.servers); }
  double speedup() const { return nodes * alone_seconds / iteration_seconds(); }
  double fraction_of_bound() const { return prospect.bound_seconds / iteration_seconds(); }
  // What a user would have to change to go faster.
  const char* limit() const {
    if (result.device_busy > 0.97) return "computing";
    if (std::max(result.link_sent, result.link_received) > 0.9) return "the link";
    return "both by turns";
  }
};

nlohmann::ordered_json to_json(const Row& row) {
  nlohmann::ordered_json j = {{"nodes", row.nodes},
                              {"servers", row.serving.servers},
                              {"bandwidth", row.bandwidth},
                              {"iteration_seconds", row.iteration_seconds()},
                              {"speedup", row.speedup()},
                              {"bound_seconds", row.prospect.bound_seconds},
                              {"fraction_of_bound", row.fraction_of_bound()},
                              {"waited_seconds", row.result.waited_seconds},
                              {"device_busy", row.result.device_busy},
                              {"link_sent", row.result.link_sent},
                              {"link_received", row.result.link_received},
                              {"limit", row.limit()},
                              {"layers", nlohmann::ordered_json::array()}};
  for (std::size_t l = 0; l < row.prospect.plan.layers.size(); ++l) {
    const plan::LayerPlan& layer = row.prospect.plan.layers[l];
    nlohmann::ordered_json entry = {{"name", layer.name}, {"scheme", to_string(layer.scheme)}};
    if (layer.scheme == Scheme::kBlock) entry["grid"] = {layer.grid.rows, layer.grid.cols};
    entry["queued_seconds"] = row.result.layers[l].queued;
    entry["synced_seconds"] = row.result.layers[l].synced;
    j["layers"].push_back(std::move(entry));
  }
  return j;
}

void print_layers(const Row& row) {
  std::printf("\n%-24s %-12s %12s %12s %12s   ms after the iteration began\n", "layer", "scheme", "on the link", "queued", "sum is in");
  for (std::size_t l = 0; l < row.prospect.plan.layers.size(); ++l) {
    const plan::LayerPlan& layer = row.prospect.plan.layers[l];
    std::string scheme(to_string(layer.scheme));
    if (layer.scheme == Scheme::kBlock) scheme += base::concat(" ", layer.grid.rows, "x", layer.grid.cols);
    std::printf("%-24s %-12s %12.3f %12.3f %12.3f\n", layer.name.c_str(), scheme.c_str(), 1e3 * row.prospect.link_seconds[l],
                1e3 * row.result.layers[l].queued, 1e3 * row.result.layers[l].synced);
  }
}

}  // namespace

int plan_command(const std::vector<std::string>& arguments) {
  PlanOptions options;
  CLI::App app;
  describe(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  const auto complain = [](const Error& error, int code) {
    std::fprintf(stderr, "poseidon plan: %s\n", error.message.c_str());
    return code;
  };
  const Result<replay::Workload> workload = read_workload(options.workload);
  if (!workload) return complain(workload.error(), exit_code_of(workload.error().code));
  if (options.no_colocated && options.servers == 0) {
    return complain({ErrorCode::kInvalid, "--no-colocated leaves nobody who serves: give --servers as well"}, kWrongUsage);
  }
  const plan::Serving serving{options.servers, !options.no_colocated};
  std::vector<Row> rows;
  for (const std::string& bandwidth : options.bandwidths) {
    const Result<double> rate = base::parse_bandwidth(bandwidth);
    if (!rate) return complain({rate.error().code, "--bandwidth: " + rate.error().message}, kWrongUsage);
    for (const int nodes : options.nodes) {
      Result<Prospect> best = prospect(*workload, options.workload.scheme, nodes, serving, *rate * kPayloadShare);
      if (!best) return complain(best.error(), exit_code_of(best.error().code));
      Result<replay::SimulationResult> result = replay::simulate(
          {.workload = *workload,
           .plan = best->plan,
           .link_bytes_per_second = *rate * kPayloadShare,
           .latency = runtime::Duration(static_cast<std::int64_t>(options.latency_us * 1e3)),
           .iterations = options.iterations - 1});
      if (!result) return complain(result.error(), kBroken);
      rows.push_back({nodes, serving, bandwidth, workload->iteration_seconds(), std::move(*best), std::move(*result)});
      if (options.as_json) continue;
      if (rows.size() == 1) {
        std::printf("%s: %llu parameters, batches of %lld, %.4g s an iteration on one node\n%6s %10s %12s %9s %12s %9s   %s\n",
                    workload->description.name.c_str(), static_cast<unsigned long long>(workload->description.parameters()),
                    static_cast<long long>(workload->batch), workload->iteration_seconds(), "nodes", "link", "iteration", "speed-up",
                    "least time", "of it", "limited by");
      }
      const Row& row = rows.back();
      std::printf("%6s %10s %10.4g s %9.2f %10.4g s %7.1f %%   %s\n", row.nodes_text().c_str(), row.bandwidth.c_str(), row.iteration_seconds(), row.speedup(),
                  row.prospect.bound_seconds, 100 * row.fraction_of_bound(), row.limit());
      std::fflush(stdout);
    }
  }
  if (!options.as_json) {
    if (options.layers) {
      for (const Row& row : rows) print_layers(row);
    }
    return kSuccess;
  }
  nlohmann::ordered_json j;
  if (rows.size() == 1) {
    j = to_json(rows.front());
  } else {
    j["rows"] = nlohmann::ordered_json::array();
    for (const Row& row : rows) j["rows"].push_back(to_json(row));
  }
  std::printf("%s\n", j.dump(2).c_str());
  return kSuccess;
}

}  // namespace poseidon::app
