// `poseidon plan`: predicts a cluster by running the engine in virtual time.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/poseidon/command.h"
#include "apps/poseidon/large_pages.h"
#include "apps/poseidon/plan_plot.h"
#include "apps/poseidon/plan_rows.h"
#include "base/quantity.h"

namespace poseidon::app {
namespace {

struct PlanOptions {
  WorkloadOptions workload;
  ScheduleOptions schedule;
  std::vector<int> nodes = {8};
  int servers = 0;
  bool no_colocated = false;
  std::vector<std::string> bandwidths = {"10Gbit"};
  std::string latency = "50us";
  int iterations = 3;
  bool layers = false;
  bool as_json = false;
  std::string plot;
};

constexpr double kLatencySecondsMax = 1;
// With fewer all is in the caches.
constexpr int kManyNodes = 128;

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon plan --model examples/models/vgg19.json --images-per-second 35.5 --batch 32 --nodes 8 --bandwidth 10Gbit\n"
    "  poseidon plan --model examples/models/alexnet.json --images-per-second 1421 --batch 128 \\\n"
    "      --nodes 2,4,8,16 --bandwidth 1Gbit,10Gbit\n"
    "  poseidon plan --model examples/models/vgg19-22k.json --images-per-second 34.6 --batch 32 --nodes 8 --scheme ps --json\n"
    "  poseidon plan --model examples/models/alexnet.json --images-per-second 1421 --batch 128 --nodes 8 --servers 4 --scheme ps\n"
    "  poseidon plan --model examples/models/resnet-152.json --images-per-second 20 --batch 32 --nodes 8 \\\n"
    "      --bandwidth 1Gbit --wire bf16\n"
    "  poseidon plan --model examples/models/vgg19.json --images-per-second 35.5 --batch 32 --nodes 8 --overlap backward --no-priorities\n"
    "  poseidon plan --model examples/digits/lenet_train_test.prototxt --record 1,28,28 --images-per-second 3000 --batch 64 \\\n"
    "      --nodes 8 --bandwidth 1Gbit --latency 0.1ms --plot speedup.png";

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
  into.schedule.describe(app);
  app.add_option("--bandwidth", into.bandwidths, "of each node's link, each direction, as the line is rated; or several")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--latency", into.latency, "one way, between any two nodes")->capture_default_str();
  app.add_option("--iterations", into.iterations, "simulated; the first is not counted")->check(CLI::Range(2, 1000))->capture_default_str();
  app.add_flag("--layers", into.layers, "print each layer's scheme and schedule as well");
  app.add_flag("--json", into.as_json, "print JSON instead of tables");
  app.add_option("--plot", into.plot,
                 "draw the speed-up over the nodes as a PNG, a line for each bandwidth; with one number of nodes and one bandwidth, "
                 "for 1, 2, 4 ... nodes up to it");
}

// Several rates or numbers of nodes are what-ifs. With one of each a plot shows the way there.
std::vector<int> nodes_of(const PlanOptions& options) {
  const bool is_one = options.nodes.size() == 1 && options.bandwidths.size() == 1;
  return is_one && !options.plot.empty() ? doubling_nodes(options.nodes.front()) : options.nodes;
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
  const Result<double> latency = base::parse_duration(options.latency);
  if (!latency || *latency > kLatencySecondsMax) {
    return complain({ErrorCode::kInvalid, "--latency: " + (latency ? options.latency + " is more than a second" : latency.error().message)},
                    kWrongUsage);
  }
  std::vector<double> rates;
  for (const std::string& bandwidth : options.bandwidths) {
    const Result<double> rate = base::parse_bandwidth(bandwidth);
    if (!rate) return complain({rate.error().code, "--bandwidth: " + rate.error().message}, kWrongUsage);
    rates.push_back(*rate);
  }
  const std::vector<int> all_nodes = nodes_of(options);
  if (*std::max_element(all_nodes.begin(), all_nodes.end()) >= kManyNodes) use_large_pages();
  std::vector<PlanRow> rows;
  for (std::size_t b = 0; b < rates.size(); ++b) {
    for (const int nodes : all_nodes) {
      Result<Prospect> best = prospect(*workload, options.workload, nodes, serving, {rates[b] * kPayloadShare, *latency});
      if (!best) return complain(best.error(), exit_code_of(best.error().code));
      Result<replay::SimulationResult> result = replay::simulate({.workload = *workload,
                                                                  .plan = best->plan,
                                                                  .link_bytes_per_second = rates[b] * kPayloadShare,
                                                                  .latency = runtime::Duration(std::llround(*latency * 1e9)),
                                                                  .overlap = options.schedule.overlap_mode(),
                                                                  .priorities = !options.schedule.no_priorities,
                                                                  .iterations = options.iterations - 1});
      if (!result) return complain(result.error(), kBroken);
      rows.push_back({nodes, serving, options.schedule, options.bandwidths[b], workload->iteration_seconds(), std::move(*best), std::move(*result)});
      if (options.as_json) continue;
      if (rows.size() == 1) print_heading(*workload);
      print_row(rows.back());
    }
  }
  if (options.as_json) {
    std::printf("%s\n", to_json(rows, *workload).dump(2).c_str());
  } else if (options.layers) {
    for (const PlanRow& row : rows) print_layers(row, *workload);
  }
  if (options.plot.empty()) return kSuccess;
  const Status plotted = plot_rows(rows, *workload, options.plot);
  return plotted ? kSuccess : complain(plotted.error(), exit_code_of(plotted.error().code));
}

}  // namespace poseidon::app
