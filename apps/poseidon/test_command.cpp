// `poseidon test`: scores a trained net over batches of its TEST phase.
#include <ATen/Parallel.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/poseidon/command.h"
#include "base/log.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/net/net.h"
#include "engines/caffe/net/test_scores.h"
#include "engines/caffe/net/trained_net.h"

namespace poseidon::app {
namespace {

struct TestOptions {
  std::string model;
  std::vector<std::string> weights;
  std::uint64_t iterations = 50;
  int threads = 0;
  std::string dtype = "float32";
  std::optional<std::string> gpu;
  std::optional<std::int64_t> level;
  std::vector<std::string> stages;
  bool as_json = false;
};

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon test --model examples/digits/lenet_train_test.prototxt \\\n"
    "      --weights examples/digits/snapshots/lenet_iter_600.caffemodel --iterations 8\n"
    "  poseidon test --model examples/digits/lenet_train_test.prototxt \\\n"
    "      --weights examples/digits/snapshots/lenet_iter_300.caffemodel --iterations 8 --json";

void describe(CLI::App& app, TestOptions& into) {
  app.name("poseidon test");
  app.description("Runs the TEST phase of a net over some batches and prints the mean of each output.");
  app.footer(kExamples);
  app.add_option("--model", into.model, "the net's prototxt")->required();
  app.add_option("--weights", into.weights, "the trained layers, .caffemodel or .caffemodel.h5 files separated by commas")->required()->delimiter(',');
  app.add_option("--iterations", into.iterations, "how many batches")
      ->check(CLI::Range(std::int64_t{1}, kIterationsMax))
      ->capture_default_str();
  app.add_option("--threads", into.threads, "0 for one on each core")->check(CLI::Range(0, 4096))->capture_default_str();
  add_data_threads(app);
  add_dtype(app, into.dtype);
  add_gpu(app, into.gpu);
  add_net_state(app, into.level, into.stages);
  app.add_flag("--json", into.as_json, "print JSON instead of text");
}

}  // namespace

int test_command(const std::vector<std::string>& arguments) {
  TestOptions options;
  CLI::App app;
  describe(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  if (const Status status = check_gpu(options.gpu, "with --threads how many cores to use"); !status) {
    std::fprintf(stderr, "poseidon test: %s\n", status.error().message.c_str());
    return kWrongInput;
  }
  outlive_file_limits();
  base::log::configure("poseidon test", base::log::Level::kInfo);  // which layers the files have nothing for
  at::set_num_threads(options.threads > 0 ? options.threads : shared_threads(1));
  caffe::Net net(caffe::proto::read_text(options.model, "NetParameter"), caffe::standard_layers(),
                 {.state = {.phase = caffe::Phase::kTest, .level = options.level.value_or(0), .stages = options.stages}, .dtype = options.dtype == "float64" ? at::kDouble : at::kFloat});
  for (const std::string& file : options.weights) caffe::copy_trained(caffe::read_any_model(file), file, net);
  const std::vector<caffe::BatchScores> scores = caffe::score_batches(net, {.count = options.iterations});
  net.finish();
  const caffe::TestScores means = caffe::averaged(net, scores, options.iterations);
  if (options.as_json) {
    nlohmann::ordered_json j = {{"model", options.model}, {"iterations", options.iterations}, {"loss", means.loss}, {"scores", nlohmann::ordered_json::array()}};
    for (const caffe::TestScore& score : means.scores) j["scores"].push_back({{"name", score.name}, {"value", score.value}});
    std::printf("%s\n", j.dump(2).c_str());
    return kSuccess;
  }
  std::printf("%s: mean of %llu batches of %zu\n", options.model.c_str(), static_cast<unsigned long long>(options.iterations), net.records_per_batch());
  for (const caffe::TestScore& score : means.scores) {
    std::printf("  %-20s %.6g", score.name.c_str(), score.value);
    if (score.loss_weight != 0) std::printf("   (* %g = %.6g loss)", score.loss_weight, score.value * score.loss_weight);
    std::printf("\n");
  }
  return kSuccess;
}

}  // namespace poseidon::app
