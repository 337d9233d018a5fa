#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/poseidon-data/chart.h"
#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/tools/parse_log.h"

namespace poseidon::data {
namespace {

using base::concat;
namespace fs = std::filesystem;

constexpr const char* kDescription =
    "Draws curves of trainings: Caffe's plot_training_log.py.\n"
    "\n"
    "LOGS are logs of Caffe's or what `poseidon train` printed; each becomes a line. CHART is Caffe's number:\n"
    "  0 accuracy of tests over iterations    1 over seconds\n"
    "  2 loss of tests over iterations        3 over seconds\n"
    "  4 learning rate over iterations        5 over seconds\n"
    "  6 loss of training over iterations     7 over seconds";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --iterations 40 > lenet.log\n"
    "  poseidon plot-log 6 lenet_loss.png lenet.log\n"
    "  poseidon plot-log --output accuracy 2 lenet_accuracy.png lenet.log";

struct PlotOptions {
  int chart = 0;
  fs::path picture;
  std::vector<std::string> logs;
  std::string output;  // what is drawn of the net's outputs; empty: what the chart's number says

  bool of_tests() const { return chart < 4; }
  bool of_rate() const { return chart == 4 || chart == 5; }
  bool over_seconds() const { return chart % 2 == 1; }
  std::string wanted() const { return !output.empty() ? output : chart < 2 ? "accuracy" : "loss"; }
};

ChartLine line_of(const std::string& log, const PlotOptions& options) {
  const Result<std::string> text = base::read_file(log);
  if (!text) throw caffe::ConfigError(text.error().message);
  const caffe::TrainingLog parsed = caffe::parse_log(*text, log);
  ChartLine line{fs::path(log).filename().string(), {}};
  for (const caffe::LogRow& row : options.of_tests() ? parsed.test : parsed.train) {
    const double x = options.over_seconds() ? row.seconds : static_cast<double>(row.iteration);
    double y = row.rate;
    if (!options.of_rate()) {
      const auto is_wanted = [&](const auto& output) { return output.first == options.wanted(); };
      const auto found = std::find_if(row.outputs.begin(), row.outputs.end(), is_wanted);
      y = found == row.outputs.end() ? caffe::kUnknown : found->second;
    }
    if (can_be_drawn(x) && can_be_drawn(y)) line.points.emplace_back(x, y);
  }
  if (!line.points.empty()) return line;
  throw caffe::ConfigError(concat(log, ": tells no ", options.of_rate() ? "learning rate" : options.wanted(), " of ",
                                  options.of_tests() ? "tests" : "training", options.over_seconds() ? " with its time" : ""));
}

void plot(const PlotOptions& options) {
  const std::string what = options.of_rate() ? "learning rate" : options.wanted();
  Chart chart{.title = concat(what, options.of_tests() ? " in tests" : options.of_rate() ? "" : " in training"),
              .x = options.over_seconds() ? "seconds" : "iterations",
              .y = what,
              .ideal = "",
              .lines = {},
              .linear = true};
  for (const std::string& log : options.logs) chart.lines.push_back(line_of(log, options));
  draw(chart, options.picture);
  std::printf("%s\n", options.picture.c_str());
}

}  // namespace

int plot_log_command(const std::vector<std::string>& arguments) {
  PlotOptions options;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("CHART", options.chart, "which chart, 0 to 7")->required()->check(CLI::Range(0, 7));
  app.add_option("OUTPUT", options.picture, "the picture (.png)")->required();
  app.add_option("LOGS", options.logs, "one or more logs")->required();
  app.add_option("--output", options.output, "draw this output of the net instead of accuracy or loss");
  return run_tool({"poseidon plot-log", {}}, app, arguments, [&] { plot(options); });
}

}  // namespace poseidon::data
