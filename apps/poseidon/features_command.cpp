// `poseidon features`: what a trained net computes on the way, for each record of its data: Caffe's extract_features.
//
// Worker k of P computes batches k, k + P, ... and writes its rows to their places in one file, so the result is in the order of the input,
// whatever P is. A data base is made of it in the end.
#include <ATen/Parallel.h>
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/npy_file.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/data/row_shapes.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/net/net.h"
#include "engines/caffe/net/trained_net.h"
#include "engines/caffe/proto/config_error.h"
#include "launch/child_process.h"
#include "launch/signals.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kLogBytesMax = 1 << 20;
constexpr int kStepMilliseconds = 500;

struct FeaturesOptions {
  std::string model;
  std::vector<std::string> weights;
  std::vector<std::string> blobs;
  std::string out;
  std::uint64_t iterations = 0;
  int workers = 1;
  int threads = 0;
  std::string format = "npy";
  std::string dtype = "float32";
  std::optional<int> part;  // this process is the worker of that number
};

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon features --model examples/digits/lenet_train_test.prototxt \\\n"
    "      --weights examples/digits/snapshots/lenet_iter_600.caffemodel --blobs ip1,ip2 --out features --iterations 4\n"
    "  poseidon features --model examples/digits/lenet_train_test.prototxt --workers 2 --format lmdb \\\n"
    "      --weights examples/digits/snapshots/lenet_iter_600.caffemodel --blobs ip1 --out features --iterations 4";

void describe(CLI::App& app, FeaturesOptions& into) {
  app.name("poseidon features");
  app.description("Runs the TEST phase of a trained net and keeps blobs of it: a row for each record, in the order of the data, as FOLDER/BLOB.npy,\n"
                  "as a data base FOLDER/BLOB_lmdb or BLOB_leveldb, or as an HDF5 file FOLDER/BLOB.h5 with a dataset of that name.");
  app.footer(kExamples);
  app.add_option("--model", into.model, "the net's prototxt")->required();
  app.add_option("--weights", into.weights, "the trained layers, .caffemodel or .caffemodel.h5 files separated by commas")->required()->delimiter(',');
  app.add_option("--blobs", into.blobs, "which blobs, separated by commas")->required()->delimiter(',');
  app.add_option("--out", into.out, "the folder of the results")->required();
  app.add_option("--iterations", into.iterations, "how many batches")->required()->check(CLI::Range(std::int64_t{1}, kIterationsMax));
  app.add_option("--workers", into.workers, "how many processes share the batches out")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--threads", into.threads, "of each; 0 shares the cores out")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_option("--format", into.format, "npy, lmdb, leveldb or hdf5")->check(CLI::IsMember({"npy", "lmdb", "leveldb", "hdf5"}))->capture_default_str();
  add_dtype(app, into.dtype);
  app.add_option("--part", into.part)->group("");
}

int complain(const Error& error) {
  std::fprintf(stderr, "poseidon features: %s\n", error.message.c_str());
  return exit_code_of(error.code);
}

std::size_t number_bytes(const FeaturesOptions& options) { return options.dtype == "float64" ? 8 : 4; }

// Of a blob, without its folder; names of blobs may have slashes.
std::string file_stem(std::string blob) {
  std::replace(blob.begin(), blob.end(), '/', '_');
  return blob;
}
std::filesystem::path part_file(const FeaturesOptions& options, const std::string& blob) {
  return std::filesystem::path(options.out) / base::concat(".", file_stem(blob), ".npy.part");
}

caffe::Net build(const FeaturesOptions& options) {
  return {caffe::proto::read_text(options.model, "NetParameter"), caffe::standard_layers(),
          {.state = {.phase = caffe::Phase::kTest}, .dtype = options.dtype == "float64" ? at::kDouble : at::kFloat, .keep_blobs = true}};
}

// By blob: the shape of the whole result.
std::vector<caffe::Shape> result_shapes(const FeaturesOptions& options, const caffe::Net& net) {
  std::vector<caffe::Shape> shapes;
  for (const std::string& name : options.blobs) {
    std::vector<std::string> names;
    for (const caffe::Blob& blob : net.blobs()) names.push_back(blob.name);
    const auto found = std::find(names.rbegin(), names.rend(), name);  // the last of its name, as computing in place has it
    if (found == names.rend()) {
      throw caffe::ConfigError(base::concat(options.model, ": phase TEST has no blob \"", name, "\"", base::did_you_mean(name, names)));
    }
    caffe::Shape shape = net.blobs()[static_cast<std::size_t>(names.rend() - found) - 1].shape;
    if (shape.empty() || static_cast<std::size_t>(shape[0]) != net.records_per_batch()) {
      throw caffe::ConfigError(base::concat(options.model, ": blob \"", name, "\" is ", base::readable_shape(shape), " and has no row for each of the ",
                                            net.records_per_batch(), " records of a batch"));
    }
    shape[0] *= static_cast<std::int64_t>(options.iterations);
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

// A worker: its share of the batches.
int compute(const FeaturesOptions& options) {
  outlive_file_limits();
  base::log::configure("poseidon features", base::log::Level::kInfo);
  at::set_num_threads(options.threads);
  caffe::Net net = build(options);
  for (const std::string& file : options.weights) caffe::copy_trained(caffe::read_any_model(file), file, net);
  const std::vector<caffe::Shape> shapes = result_shapes(options, net);
  std::vector<NpyFile> files;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    Result<NpyFile> file = NpyFile::open(part_file(options, options.blobs[i]), shapes[i], number_bytes(options));
    if (!file) return complain(file.error());
    files.push_back(std::move(*file));
  }
  const std::uint64_t records = net.records_per_batch();
  const auto stride = static_cast<std::uint64_t>(options.workers);
  for (auto batch = static_cast<std::uint64_t>(*options.part); batch < options.iterations; batch += stride) {
    net.forward({.first_record = batch * records, .record_stride = stride * records});
    for (std::size_t i = 0; i < files.size(); ++i) {
      const at::Tensor value = net.blob(options.blobs[i]).contiguous();
      const Status status = files[i].write_rows(batch * records, {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()});
      if (!status) return complain(status.error());
    }
    std::printf("%llu\n", static_cast<unsigned long long>(batch));
    std::fflush(stdout);
  }
  net.finish();
  return kSuccess;
}

class Features {
 public:
  Features(FeaturesOptions options, const std::vector<std::string>& arguments) : options_(std::move(options)), arguments_(arguments) {}
  ~Features() {
    std::error_code ignored;
    for (const std::string& blob : options_.blobs) std::filesystem::remove(part_file(options_, blob), ignored);
    for (int worker = 0; worker < options_.workers; ++worker) std::filesystem::remove(log_of(worker), ignored);
  }

  int run() {
    // Until the end, since who is ended by a signal removes nothing; and before there are threads, any of which might be ended by one.
    const launch::SignalDescriptor signals{SIGINT, SIGTERM, SIGHUP, SIGCHLD};
    shapes_ = result_shapes(options_, build(options_));
    std::error_code failed;
    std::filesystem::create_directories(options_.out, failed);
    if (failed) return complain({ErrorCode::kSystem, base::concat("cannot make the folder ", options_.out, ": ", failed.message())});
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      if (const Status status = NpyFile::create(part_file(options_, options_.blobs[i]), shapes_[i], number_bytes(options_)); !status) {
        return complain(status.error());
      }
    }
    if (const int code = run_workers(signals); code != kSuccess) return code;
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      if (const int signal = asked_to_end(signals); signal != 0) return tell_interrupted(signal, i);
      if (const Status status = finish(options_.blobs[i], shapes_[i]); !status) return complain(status.error());
    }
    return kSuccess;
  }

 private:
  std::filesystem::path log_of(int worker) const { return std::filesystem::path(options_.out) / base::concat(".features-", worker, ".log"); }

  // The signal by which the user wants the end; 0: none.
  static int asked_to_end(const launch::SignalDescriptor& signals) {
    int signal = signals.next();
    while (signal == SIGCHLD) signal = signals.next();
    return signal;
  }

  static int tell_interrupted(int signal, std::size_t results) {
    std::fprintf(stderr, "poseidon features: interrupted; %s\n", results == 0 ? "nothing was written" : "some results were not written");
    return kSignalled + signal;
  }

  int run_workers(const launch::SignalDescriptor& signals) {
    std::vector<std::optional<launch::ChildProcess>> workers;
    const auto end_all = [&] {
      for (std::optional<launch::ChildProcess>& worker : workers) {
        if (!worker) continue;
        worker->kill(SIGKILL);
        ::waitpid(worker->pid(), nullptr, 0);
        worker.reset();
      }
    };
    for (int number = 0; number < options_.workers; ++number) {
      std::vector<std::string> arguments = arguments_;
      arguments.push_back(base::concat("--part=", number));
      const Result<std::vector<std::string>> command = own_command("features", arguments);
      if (!command) return complain(command.error());
      std::error_code ignored;
      std::filesystem::remove(log_of(number), ignored);
      const Result<launch::ChildProcess> started = launch::ChildProcess::start(
          {.command = *command, .environment = {{"OMP_NUM_THREADS", std::to_string(options_.threads)}}, .log = log_of(number), .folder = {}});
      if (!started) {
        end_all();
        return complain(started.error());
      }
      workers.emplace_back(*started);
    }
    int left = options_.workers;
    while (left > 0) {
      pollfd waiting{signals.fd(), POLLIN, 0};
      ::poll(&waiting, 1, kStepMilliseconds);
      if (const int signal = asked_to_end(signals); signal != 0) {
        end_all();
        return tell_interrupted(signal, 0);
      }
      for (int number = 0; number < options_.workers; ++number) {
        std::optional<launch::ChildProcess>& worker = workers[static_cast<std::size_t>(number)];
        int status = 0;
        if (!worker || ::waitpid(worker->pid(), &status, WNOHANG) != worker->pid()) continue;
        worker.reset();
        --left;
        const launch::Exit exit = launch::ChildProcess::exit_of(status);
        if (exit.signal == 0 && exit.code == 0) continue;
        end_all();
        return tell_failure(number, exit);
      }
      if (left > 0) show_progress();
    }
    return kSuccess;
  }

  int tell_failure(int number, const launch::Exit& exit) const {
    const Result<std::string> log = base::read_file(log_of(number), kLogBytesMax);
    std::string last = log ? *log : std::string();
    while (!last.empty() && last.back() == '\n') last.pop_back();
    last = last.substr(last.rfind('\n') == last.npos ? 0 : last.rfind('\n') + 1);
    if (exit.signal == 0 && !last.empty()) {
      std::fprintf(stderr, "%s\n", last.c_str());
      return exit.code;
    }
    return complain({ErrorCode::kPeerLost, base::concat("worker ", number, " ended with ", exit.text(), last.empty() ? "" : ": ", last)});
  }

  // Now and then. Each worker writes a line for a batch.
  void show_progress() {
    const auto now = std::chrono::steady_clock::now();
    if (now - told_ < std::chrono::seconds(5)) return;
    told_ = now;
    std::uint64_t done = 0;
    for (int number = 0; number < options_.workers; ++number) {
      const Result<std::string> log = base::read_file(log_of(number));
      if (log) done += static_cast<std::uint64_t>(std::count(log->begin(), log->end(), '\n'));
    }
    std::fprintf(stderr, "poseidon features: about %llu of %llu batches\n", static_cast<unsigned long long>(std::min(done, options_.iterations)),
                 static_cast<unsigned long long>(options_.iterations));
  }

  Status finish(const std::string& blob, const caffe::Shape& shape) const {
    const std::filesystem::path folder = options_.out;
    std::filesystem::path result = folder / (file_stem(blob) + ".npy");
    if (options_.format == "npy") {
      std::error_code failed;
      std::filesystem::rename(part_file(options_, blob), result, failed);
      if (failed) return Error{ErrorCode::kSystem, base::concat("cannot rename to ", result.string(), ": ", failed.message())};
    } else {
      result = folder / (file_stem(blob) + (options_.format == "hdf5" ? ".h5" : "_" + options_.format));
      convert(blob, shape, result);
    }
    std::printf("%s: %s\n", result.c_str(), base::readable_shape(shape).c_str());
    return {};
  }

  // By the program that links the libraries of data bases and HDF5.
  void convert(const std::string& blob, const caffe::Shape& shape, const std::filesystem::path& result) const {
    const std::size_t header_bytes = NpyFile::header(shape, number_bytes(options_)).size();
    std::vector<std::string> words = {"write-rows",
                                      "--format=" + options_.format,
                                      "--to=" + result.string(),
                                      "--name=" + (options_.format == "hdf5" ? file_stem(blob) : blob),
                                      "--file=" + part_file(options_, blob).string(),
                                      "--shape=" + caffe::row_shapes_text({shape}),
                                      base::concat("--offset=", header_bytes)};
    if (number_bytes(options_) == 8) words.emplace_back("--double");
    caffe::run_data_program({.arguments = std::move(words), .name = result.string(), .wait_max = std::chrono::hours(24)});
  }

  FeaturesOptions options_;
  const std::vector<std::string>& arguments_;
  std::vector<caffe::Shape> shapes_;
  std::chrono::steady_clock::time_point told_ = std::chrono::steady_clock::now();
};

}  // namespace

int features_command(const std::vector<std::string>& arguments) {
  FeaturesOptions options;
  CLI::App app;
  describe(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  if (options.threads == 0) options.threads = shared_threads(options.workers);
  if (options.part) return compute(options);
  return Features(std::move(options), arguments).run();
}

}  // namespace poseidon::app
