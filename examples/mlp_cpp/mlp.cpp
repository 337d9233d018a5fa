// A multilayer perceptron written by hand, trained by several worker processes.
//
//   gunzip -c examples/digits/digits.csv.gz > digits.csv
//   mlp --data digits.csv --workers 4 --scheme sfb
//
// 64 pixels, a hidden layer of tanh, 10 digits with softmax; plain SGD, double precision, no framework: everything that
// computes is in this file, and Poseidon adds the workers' gradients up. The batch is the global one, so whatever the number
// of workers and the scheme, the losses are those of one process but for the last bits.
//
// The program is its own launcher: started by hand it starts itself --workers times, and those find a job to join.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "poseidon/arrivals.h"
#include "poseidon/cluster.h"
#include "poseidon/local.h"

namespace {

using poseidon::Error;
using poseidon::ErrorCode;
using poseidon::Iteration;
using poseidon::LayerId;
using poseidon::Result;
using poseidon::Scheme;
using poseidon::Status;
using poseidon::Synced;
using poseidon::TensorId;
using poseidon::TensorView;

using Numbers = std::vector<double>;

constexpr std::size_t kPixels = 64;
constexpr std::size_t kDigits = 10;
constexpr double kWhite = 16;          // pixels are 0 to 16
constexpr std::size_t kTestEvery = 5;  // each fifth record is kept for the test

struct Options {
  std::string data = "digits.csv";
  std::string scheme = "auto";
  std::string curve;  // a file that gets each iteration's loss
  int workers = 1;
  std::size_t batch = 120;  // of all workers together
  std::size_t hidden = 32;
  std::uint64_t iterations = 200;
  double rate = 0.5;
};

struct Digits {
  std::vector<Numbers> pixels;  // [records][kPixels], from 0 to 1
  std::vector<std::size_t> digits;
};

Error wrong(const std::string& text) { return {ErrorCode::kInvalid, text}; }

Result<Options> parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) return wrong(flag + " needs a value");
    const char* const value = argv[i + 1];
    if (flag == "--data") options.data = value;
    else if (flag == "--scheme") options.scheme = value;
    else if (flag == "--curve") options.curve = value;
    else if (flag == "--workers") options.workers = std::atoi(value);
    else if (flag == "--batch") options.batch = static_cast<std::size_t>(std::atoi(value));
    else if (flag == "--hidden") options.hidden = static_cast<std::size_t>(std::atoi(value));
    else if (flag == "--iterations") options.iterations = static_cast<std::uint64_t>(std::atoi(value));
    else if (flag == "--rate") options.rate = std::atof(value);
    else return wrong("there is no flag " + flag + ": --data --workers --scheme --batch --hidden --iterations --rate --curve");
  }
  if (options.workers < 1 || options.batch < 1 || options.batch % static_cast<std::size_t>(options.workers) != 0) {
    return wrong("--batch must be a multiple of --workers");
  }
  if (options.hidden < 1) return wrong("--hidden must be at least 1");
  return options;
}

// Lines of a digit and 64 pixels: the records for training, and those for testing.
Status read_digits(const std::string& file, Digits& train, Digits& test) {
  std::ifstream lines(file);
  if (!lines) return Error{ErrorCode::kNotFound, file + " cannot be read: gunzip -c examples/digits/digits.csv.gz > " + file};
  std::string line;
  for (std::size_t record = 0; std::getline(lines, line); ++record) {
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream words(line);
    std::size_t digit = kDigits;
    Numbers pixels(kPixels);
    words >> digit;
    for (double& pixel : pixels) {
      words >> pixel;
      pixel /= kWhite;
    }
    if (!words || digit >= kDigits) return wrong(file + ":" + std::to_string(record + 1) + " is not a digit and 64 pixels");
    Digits& set = record % kTestEvery == kTestEvery - 1 ? test : train;
    set.digits.push_back(digit);
    set.pixels.push_back(std::move(pixels));
  }
  if (test.digits.empty()) return wrong(file + " has too few records");
  return {};
}

// A fully connected layer: its values, and the memory for their gradients, in which the sums over all workers arrive.
struct Layer {
  Layer(std::uint32_t place, std::size_t outputs_, std::size_t inputs_)
      : id{place}, weight_id{2 * place}, bias_id{2 * place + 1}, outputs(outputs_), inputs(inputs_), weight(outputs * inputs),
        bias(outputs), weight_sum(outputs * inputs), bias_sum(outputs) {}

  LayerId id;
  TensorId weight_id;
  TensorId bias_id;
  std::size_t outputs;
  std::size_t inputs;
  Numbers weight;  // [outputs, inputs]
  Numbers bias;    // [outputs]
  Numbers weight_sum;
  Numbers bias_sum;
};

TensorView view(Numbers& numbers) {
  return {reinterpret_cast<std::byte*>(numbers.data()), numbers.size() * sizeof(double), poseidon::DType::kFloat64, {}};
}

// Uniform in ±1/√inputs, by SplitMix64: the same on every machine.
void fill(Layer& layer, std::uint64_t state) {
  for (double& w : layer.weight) {
    state += 0x9E3779B97F4A7C15;
    std::uint64_t word = state;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB;
    word ^= word >> 31;
    w = (2 * (static_cast<double>(word >> 11) * 0x1p-53) - 1) / std::sqrt(static_cast<double>(layer.inputs));
  }
}

// y [rows, outputs] = x Wᵀ + b
Numbers forward(const Layer& layer, const Numbers& x, std::size_t rows) {
  Numbers y(rows * layer.outputs);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t o = 0; o < layer.outputs; ++o) {
      double sum = layer.bias[o];
      for (std::size_t i = 0; i < layer.inputs; ++i) sum += layer.weight[o * layer.inputs + i] * x[r * layer.inputs + i];
      y[r * layer.outputs + o] = sum;
    }
  }
  return y;
}

// What a worker reports of an iteration.
struct Score {
  double loss = 0;  // sum over its rows
  int right = 0;
};

// The loss and the errors at the output, softmax(y) - digit, which take the place of y.
Score softmax_loss(Numbers& y, const std::vector<std::size_t>& digits) {
  Score score;
  for (std::size_t r = 0; r < digits.size(); ++r) {
    double* const row = &y[r * kDigits];
    const double most = *std::max_element(row, row + kDigits);
    if (static_cast<std::size_t>(std::max_element(row, row + kDigits) - row) == digits[r]) ++score.right;
    double sum = 0;
    for (std::size_t d = 0; d < kDigits; ++d) sum += std::exp(row[d] - most);
    score.loss += std::log(sum) + most - row[digits[r]];
    for (std::size_t d = 0; d < kDigits; ++d) row[d] = std::exp(row[d] - most) / sum - (d == digits[r] ? 1 : 0);
  }
  return score;
}

class Worker {
 public:
  explicit Worker(const Options& options)
      : options_(options), hidden_(0, options.hidden, kPixels), output_(1, kDigits, options.hidden) {}

  Status join(poseidon::Place place) {
    if (const Status status = read_digits(options_.data, train_, test_); !status) {
      poseidon::report_failure(status.error());
      return status;
    }
    rows_ = options_.batch / static_cast<std::size_t>(place.workers);
    first_row_ = rows_ * static_cast<std::size_t>(place.rank);
    // The others' values come from rank 0.
    if (place.rank == 0) {
      fill(hidden_, 1);
      fill(output_, 2);
    }
    poseidon::JobOptions job;
    for (Layer* layer : {&hidden_, &output_}) {
      const std::string name = layer == &hidden_ ? "hidden" : "output";
      const auto extent = [](std::size_t n) { return static_cast<std::int64_t>(n); };
      job.model.tensors.push_back({name + ".weight", {extent(layer->outputs), extent(layer->inputs)}, poseidon::DType::kFloat64});
      job.model.tensors.push_back({name + ".bias", {extent(layer->outputs)}, poseidon::DType::kFloat64});
      // The gradient of the weight is a sum of as many outer products as this worker has rows, so it may travel as factors.
      job.model.layers.push_back({name, {layer->weight_id, layer->bias_id}, rows_});
      job.values.push_back(view(layer->weight));
      job.values.push_back(view(layer->bias));
    }
    Result<std::unique_ptr<poseidon::Cluster>> joined = poseidon::Cluster::join(std::move(job));
    if (!joined) return joined.error();
    cluster_ = std::move(*joined);
    return {};
  }

  Status train() {
    for (Iteration iteration = 0; iteration < options_.iterations; ++iteration) {
      const Result<bool> go = cluster_->begin(iteration);
      if (!go) return go.error();
      if (!*go) break;
      if (const Status status = step(iteration); !status) return status;
    }
    for (Layer* layer : {&hidden_, &output_}) {
      if (const Status status = settle(*layer); !status) return status;
    }
    if (cluster_->rank() == 0) test();
    return cluster_->leave();
  }

 private:
  // One iteration. A layer's gradient leaves as soon as it is there, and its sum is wanted only when the next forward pass
  // reaches the layer: in between the worker computes, and the engine sends.
  Status step(Iteration iteration) {
    const auto x = std::make_shared<Numbers>(rows_ * kPixels);
    std::vector<std::size_t> digits(rows_);
    for (std::size_t r = 0; r < rows_; ++r) {
      const std::size_t record = (iteration * options_.batch + first_row_ + r) % train_.digits.size();
      std::copy(train_.pixels[record].begin(), train_.pixels[record].end(), x->begin() + static_cast<std::ptrdiff_t>(r * kPixels));
      digits[r] = train_.digits[record];
    }
    if (const Status status = settle(hidden_); !status) return status;
    const auto h = std::make_shared<Numbers>(forward(hidden_, *x, rows_));
    for (double& value : *h) value = std::tanh(value);
    if (const Status status = settle(output_); !status) return status;
    const auto errors = std::make_shared<Numbers>(forward(output_, *h, rows_));
    const Score score = softmax_loss(*errors, digits);
    submit(output_, iteration, errors, h);
    // The errors at the hidden layer's output, through the output layer and tanh.
    const auto hidden_errors = std::make_shared<Numbers>(rows_ * hidden_.outputs);
    for (std::size_t r = 0; r < rows_; ++r) {
      for (std::size_t i = 0; i < hidden_.outputs; ++i) {
        double sum = 0;
        for (std::size_t o = 0; o < kDigits; ++o) sum += (*errors)[r * kDigits + o] * output_.weight[o * hidden_.outputs + i];
        const double value = (*h)[r * hidden_.outputs + i];
        (*hidden_errors)[r * hidden_.outputs + i] = sum * (1 - value * value);
      }
    }
    submit(hidden_, iteration, hidden_errors, x);
    char text[96];
    std::snprintf(text, sizeof text, "loss %llu %a %d", static_cast<unsigned long long>(iteration), score.loss, score.right);
    return cluster_->note(text);
  }

  // Hands a layer's gradient over, as the plan says: itself, or the two factors of which it is the product.
  void submit(Layer& layer, Iteration iteration, const std::shared_ptr<Numbers>& errors, const std::shared_ptr<Numbers>& inputs) {
    const std::uint32_t samples = static_cast<std::uint32_t>(rows_);
    poseidon::Session& session = cluster_->session();
    layer_is_out_[index(layer.id)] = true;
    if (session.scheme(layer.id) != Scheme::kPs) {
      const auto factors = std::make_shared<std::pair<std::shared_ptr<Numbers>, std::shared_ptr<Numbers>>>(errors, inputs);
      session.submit_factors(layer.id, iteration,
                             {.outputs = view(*errors), .inputs = view(*inputs), .rows = rows_, .hold = factors,
                              .weight = view(layer.weight_sum), .bias = view(layer.bias_sum), .ready = {}, .samples = samples},
                             arrivals_.expect(index(layer.weight_id)));
      return;
    }
    std::fill(layer.weight_sum.begin(), layer.weight_sum.end(), 0.0);
    std::fill(layer.bias_sum.begin(), layer.bias_sum.end(), 0.0);
    for (std::size_t r = 0; r < rows_; ++r) {
      for (std::size_t o = 0; o < layer.outputs; ++o) {
        const double error = (*errors)[r * layer.outputs + o];
        layer.bias_sum[o] += error;
        for (std::size_t i = 0; i < layer.inputs; ++i) layer.weight_sum[o * layer.inputs + i] += error * (*inputs)[r * layer.inputs + i];
      }
    }
    session.submit(layer.weight_id, iteration, {.gradient = view(layer.weight_sum), .ready = {}, .samples = samples},
                   arrivals_.expect(index(layer.weight_id)));
    session.submit(layer.bias_id, iteration, {.gradient = view(layer.bias_sum), .ready = {}, .samples = samples},
                   arrivals_.expect(index(layer.bias_id)));
  }

  // Waits for a layer's sums, where some are outstanding, and makes its step of SGD.
  Status settle(Layer& layer) {
    if (!std::exchange(layer_is_out_[index(layer.id)], false)) return {};
    const Synced weight = arrivals_.wait(index(layer.weight_id));
    if (weight.error) return *weight.error;
    if (cluster_->session().scheme(layer.id) == Scheme::kPs) {
      const Synced bias = arrivals_.wait(index(layer.bias_id));
      if (bias.error) return *bias.error;
    }
    const double rate = options_.rate / static_cast<double>(weight.samples);
    for (std::size_t i = 0; i < layer.weight.size(); ++i) layer.weight[i] -= rate * layer.weight_sum[i];
    for (std::size_t i = 0; i < layer.bias.size(); ++i) layer.bias[i] -= rate * layer.bias_sum[i];
    return {};
  }

  void test() {
    int right = 0;
    for (std::size_t r = 0; r < test_.digits.size(); ++r) {
      Numbers h = forward(hidden_, test_.pixels[r], 1);
      for (double& value : h) value = std::tanh(value);
      Numbers y = forward(output_, h, 1);
      right += softmax_loss(y, {test_.digits[r]}).right;
    }
    char text[96];
    std::snprintf(text, sizeof text, "test %d %zu", right, test_.digits.size());
    if (const Status told = cluster_->note(text); !told) std::fprintf(stderr, "mlp: %s\n", told.error().message.c_str());
  }

  const Options& options_;
  Digits train_;
  Digits test_;
  std::size_t rows_ = 0;       // of the global batch, this worker's
  std::size_t first_row_ = 0;
  Layer hidden_;
  Layer output_;
  bool layer_is_out_[2] = {false, false};  // submitted and not settled
  poseidon::Arrivals arrivals_;
  std::unique_ptr<poseidon::Cluster> cluster_;  // last: it uses the memory of the others until it is closed
};

// The launcher's side of the notes: adds up what the workers say of an iteration, in the order of ranks.
class Report {
 public:
  explicit Report(const Options& options) : options_(options) {}

  void on_note(int rank, const std::string& text) {
    unsigned long long iteration = 0;
    Score score;
    int right = 0;
    std::size_t tested = 0;
    if (std::sscanf(text.c_str(), "loss %llu %la %d", &iteration, &score.loss, &score.right) == 3) {
      std::vector<Score>& scores = scores_[iteration];
      scores.resize(static_cast<std::size_t>(options_.workers));
      scores[static_cast<std::size_t>(rank)] = score;
      if (++told_[iteration] == options_.workers) finish(iteration, scores);
    } else if (std::sscanf(text.c_str(), "test %d %zu", &right, &tested) == 2) {
      std::printf("test: %d of %zu digits right, %.2f %%\n", right, tested, 100.0 * right / static_cast<double>(tested));
    }
  }

  Status write_curve() const {
    if (options_.curve.empty()) return {};
    std::ofstream file(options_.curve);
    file.precision(17);
    for (const double loss : losses_) file << loss << '\n';
    file.flush();
    if (!file) return Error{ErrorCode::kSystem, "cannot write " + options_.curve};
    return {};
  }

 private:
  void finish(unsigned long long iteration, const std::vector<Score>& scores) {
    Score all;
    for (const Score& one : scores) {
      all.loss += one.loss;
      all.right += one.right;
    }
    const double batch = static_cast<double>(options_.batch);
    losses_.push_back(all.loss / batch);  // each worker tells its iterations in order, so they are complete in order
    if (iteration % 20 == 0 || iteration + 1 == options_.iterations) {
      std::printf("iteration %4llu: loss %.6f, accuracy %.2f %%\n", iteration, losses_.back(), 100 * all.right / batch);
      std::fflush(stdout);
    }
    scores_.erase(iteration);
    told_.erase(iteration);
  }

  const Options& options_;
  std::map<unsigned long long, std::vector<Score>> scores_;  // of iterations that not all have told
  std::map<unsigned long long, int> told_;
  Numbers losses_;
};

int complain(const Error& error) {
  std::fprintf(stderr, "mlp: %s\n", error.message.c_str());
  return 1;
}

int launch(const Options& options) {
  Report report(options);
  poseidon::LocalOptions job;
  job.workers = options.workers;
  job.schemes = options.scheme;
  job.on_note = [&](int rank, const std::string& text) { report.on_note(rank, text); };
  // The schemes that were chosen, with the bytes behind the choice; one worker has nobody to send anything to.
  job.on_plan = [&](const std::string&, const std::string& table) {
    if (options.workers > 1) std::fputs(table.c_str(), stdout);
  };
  const poseidon::LocalEnd end = poseidon::run_local(job);
  if (end.error) return complain(*end.error);
  if (const Status written = report.write_curve(); !written) return complain(written.error());
  return end.interrupted ? 128 + *end.interrupted : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Result<Options> options = parse(argc, argv);
  if (!options) return complain(options.error());
  const Result<std::optional<poseidon::Place>> place = poseidon::find_job();
  if (!place) return complain(place.error());
  if (!*place) return launch(*options);
  Worker worker(*options);
  Status status = worker.join(**place);
  if (status) status = worker.train();
  return status ? 0 : complain(status.error());
}
