// `poseidon time`: how long each layer takes, forward and backward.
#include <ATen/Parallel.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/poseidon/command.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/net/layer_timing.h"
#include "engines/caffe/net/net.h"

namespace poseidon::app {
namespace {

struct TimeOptions {
  std::string model;
  int iterations = 50;
  int threads = 0;
  std::string dtype = "float32";
  std::string phase = "TRAIN";
  std::optional<std::string> gpu;
  std::optional<std::int64_t> level;
  std::vector<std::string> stages;
  bool as_json = false;
};

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon time --model examples/digits/lenet_train_test.prototxt\n"
    "  poseidon time --model examples/digits/lenet_train_test.prototxt --iterations 10 --threads 1 --json";

void describe(CLI::App& app, TimeOptions& into) {
  app.name("poseidon time");
  app.description("Runs a net forward and backward and prints the time of each layer: median, least and most\n"
                  "of the iterations, in milliseconds. No parameter is changed.");
  app.footer(kExamples);
  app.add_option("--model", into.model, "the net's prototxt")->required();
  app.add_option("--iterations", into.iterations, "how many, after one to warm up")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  app.add_option("--threads", into.threads, "0 for one on each core")->check(CLI::Range(0, 4096))->capture_default_str();
  add_data_threads(app);
  add_dtype(app, into.dtype);
  app.add_option("--phase", into.phase, "which of the net's phases")->check(CLI::IsMember({"TRAIN", "TEST"}))->capture_default_str();
  add_gpu(app, into.gpu);
  add_net_state(app, into.level, into.stages);
  app.add_flag("--json", into.as_json, "print JSON instead of a table");
}

nlohmann::ordered_json to_json(const caffe::Spread& spread) {
  return {{"median_ms", spread.median_ms}, {"min_ms", spread.min_ms}, {"max_ms", spread.max_ms}};
}

void print_row(const std::string& name, const std::string& type, const caffe::Spread& forward, const caffe::Spread& backward) {
  std::printf("%-20s %-18s %9.3f %9.3f %9.3f   %9.3f %9.3f %9.3f\n", name.c_str(), type.c_str(), forward.median_ms, forward.min_ms,
              forward.max_ms, backward.median_ms, backward.min_ms, backward.max_ms);
}

}  // namespace

int time_command(const std::vector<std::string>& arguments) {
  TimeOptions options;
  CLI::App app;
  describe(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  if (const Status status = check_gpu(options.gpu, "with --threads how many cores to use"); !status) {
    std::fprintf(stderr, "poseidon time: %s\n", status.error().message.c_str());
    return kWrongInput;
  }
  at::set_num_threads(options.threads > 0 ? options.threads : shared_threads(1));
  caffe::Net net(caffe::proto::read_text(options.model, "NetParameter"), caffe::standard_layers(),
                 {.state = {.phase = options.phase == "TEST" ? caffe::Phase::kTest : caffe::Phase::kTrain, .level = options.level.value_or(0), .stages = options.stages}, .dtype = options.dtype == "float64" ? at::kDouble : at::kFloat});
  outlive_file_limits();
  const caffe::NetTime time = caffe::time_layers(net, options.iterations);
  net.finish();
  if (options.as_json) {
    nlohmann::ordered_json j = {{"model", options.model}, {"iterations", options.iterations}, {"threads", at::get_num_threads()},
                                {"batch", net.records_per_batch()}, {"layers", nlohmann::ordered_json::array()}};
    for (const caffe::LayerTime& layer : time.layers) {
      j["layers"].push_back({{"name", layer.name}, {"type", layer.type}, {"forward", to_json(layer.forward)}, {"backward", to_json(layer.backward)}});
    }
    j["forward"] = to_json(time.forward);
    j["backward"] = to_json(time.backward);
    std::printf("%s\n", j.dump(2).c_str());
    return kSuccess;
  }
  std::printf("%s: batches of %zu, %d iterations, %d threads; milliseconds\n", options.model.c_str(), net.records_per_batch(),
              options.iterations, at::get_num_threads());
  std::printf("%-20s %-18s %9s %9s %9s   %9s %9s %9s\n", "layer", "type", "forward", "least", "most", "backward", "least", "most");
  for (const caffe::LayerTime& layer : time.layers) print_row(layer.name, layer.type, layer.forward, layer.backward);
  print_row("the whole net", "", time.forward, time.backward);
  return kSuccess;
}

}  // namespace poseidon::app
