#include "apps/poseidon/train_worker.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <new>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/train_notes.h"
#include "base/checksum.h"
#include "base/log.h"
#include "base/text.h"
#include "collective/share_bytes.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/solver/solver.h"
#include "engines/torch/aten_compute.h"
#include "engines/torch/session_exchange.h"
#include "engines/torch/tensor_view.h"
#include "launch/sentence.h"
#include "launch/signals.h"
#include "trace/timeline.h"

namespace poseidon::app {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

// Iterations are told in bundles, at least so often.
constexpr auto kTellEvery = std::chrono::milliseconds(500);
// A note is a message, which has a bound.
constexpr std::size_t kTimelineSliceBytes = 4 << 20;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class TrainWorker : public caffe::SolverHost {
 public:
  TrainWorker(const TrainOptions& options, const cluster::JobAddress& job) : options_(options), job_(job) {}
  // The worker first: until its lane has ended it uses the memory of the others.
  ~TrainWorker() override { worker_.reset(); }

  void prepare();
  void join();
  void train();
  // Tells everybody that this worker cannot go on.
  void fail(const Error& error) {
    if (worker_) {
      worker_->fail(error);
    } else {
      launch::report_error(rank(), error);
    }
  }
  void tell_timeline();
  void write_timeline();

  void on_iteration(const caffe::IterationReport& report) override;
  void on_test(const caffe::TestReport& report) override;
  void on_snapshot(const caffe::SnapshotReport& report) override;
  caffe::Wish wish(Iteration iterations_done) override;
  bool writes_snapshots() override { return rank() == 0 && !(stopped_ && options_.on_interrupt == "discard"); }
  std::vector<caffe::BatchScores> gather(std::vector<caffe::BatchScores> own) override;

 private:
  int rank() const { return static_cast<int>(index(job_.rank)); }
  bool begin(Iteration iteration);
  std::vector<std::string> gather(const std::string& own);
  void share(std::uint64_t number, std::shared_ptr<const aten::Bytes> own, std::size_t bytes_max, aten::SharedFn done);
  void compare_replicas();
  void tell_progress();
  void tell_end(const cluster::Worker::Traffic& before, Clock::time_point start, Iteration first);

  launch::SignalDescriptor asked_{launch::kTellSignal};  // for a snapshot; before there are threads, which inherit the mask
  const TrainOptions& options_;
  const cluster::JobAddress& job_;
  std::unique_ptr<trace::Timeline> timeline_;
  std::unique_ptr<caffe::Solver> solver_;
  std::unique_ptr<aten::SessionExchange> exchange_;
  std::unique_ptr<cluster::Worker> worker_;
  std::vector<IterationNote> untold_;
  Clock::time_point told_ = Clock::now();
  bool stopped_ = false;
};

void TrainWorker::prepare() {
  at::set_num_threads(options_.threads);
  if (options_.timeline) timeline_ = std::make_unique<trace::Timeline>(trace::TimelineOptions{.rank = rank()});
  solver_ = std::make_unique<caffe::Solver>(
      caffe::proto::read_text(options_.solver, "SolverParameter"), caffe::standard_layers(),
      caffe::SolverOptions{.dtype = options_.dtype == "float64" ? at::kDouble : at::kFloat,
                           .iterations_max = options_.iterations,
                           .train_level = options_.level,
                           .train_stages = options_.stages,
                           .sync_batch_norm = options_.sync_batch_norm,
                           .update = options_.update == "sum" ? caffe::Update::kSum : caffe::Update::kAverage,
                           .worker = {.rank = static_cast<std::uint64_t>(rank()), .workers = static_cast<std::uint64_t>(job_.workers)},
                           .events = timeline_.get()});
  for (const std::string& model : options_.weights) solver_->load_weights(model);
  if (options_.snapshot) solver_->restore(*options_.snapshot);
}

void TrainWorker::join() {
  std::vector<aten::LayerParameters> layers = solver_->parameters();
  // Where the user has asked for a scheme, that is it.
  for (aten::LayerParameters& layer : layers) {
    if (options_.schemes.all || options_.schemes.by_layer.contains(layer.name)) layer.touched_rows = 0;
  }
  cluster::WorkerOptions options{.job = job_, .model = aten::model_of(layers)};
  options.make_compute = [this](runtime::Runtime& lane) { return std::make_unique<aten::AtenCompute>(lane, options_.threads); };
  options.events = timeline_.get();
  options.lanes = options_.job.lanes;
  options.pin_lanes = options_.job.pin_lanes;
  options.staging_bytes_max = options_.job.staging_bytes_max;
  options.first = solver_->iteration();
  options.plan_change_hooks = {.settle = [this] { exchange_->settle_all(); }, .waited_seconds = [this] { return exchange_->wait_seconds(); }};
  for (const aten::LayerParameters& layer : layers) {
    for (const at::Tensor& parameter : layer.parameters) options.values.push_back(aten::view_of(parameter));
  }
  if (timeline_) {
    std::vector<std::string> names;
    for (const TensorSpec& tensor : options.model.tensors) names.push_back(tensor.name);
    timeline_->set_tensor_names(std::move(names));
  }
  Result<std::unique_ptr<cluster::Worker>> worker = cluster::Worker::join(std::move(options));
  if (!worker) throw aten::JobOver(worker.error());
  worker_ = std::move(*worker);
  exchange_ = std::make_unique<aten::SessionExchange>(
      worker_->session(), layers, solver_->update_function(),
      aten::SessionExchangeOptions{.samples = static_cast<std::uint32_t>(solver_->records_per_iteration()),
                                  .events = timeline_.get(),
                                  .gather = [this](const std::string& own) { return worker_->gather(own); },
                                  .share = [this](auto&&... what) { share(std::forward<decltype(what)>(what)...); }});
  for (std::size_t l = 0; l < layers.size() && rank() == 0; ++l) {
    if (!exchange_->takes_rows(LayerId{static_cast<std::uint32_t>(l)})) continue;
    base::log::info(base::concat("layer ", layers[l].name, ": the rows of its table that a batch touches travel, not the table's gradient"));
  }
}

void TrainWorker::share(std::uint64_t number, std::shared_ptr<const aten::Bytes> own, std::size_t bytes_max, aten::SharedFn done) {
  worker_->lane().post([this, number, own = std::move(own), bytes_max, done = std::move(done)]() mutable {
    collective::share_bytes(worker_->mailbox(),
                            {.self = job_.rank, .workers = job_.workers, .channel = 0, .number = number, .bytes_max = bytes_max}, std::move(own),
                            std::move(done));
  });
}

void TrainWorker::train() {
  const cluster::Worker::Traffic before = worker_->traffic();
  const Iteration first = solver_->iteration();
  const Clock::time_point start = Clock::now();
  stopped_ = !begin(first);
  if (rank() == 0) worker_->note(encode(StartNote{solver_->net().name(), std::string(to_string(solver_->settings().rate.kind))}));
  if (!stopped_) solver_->train(*exchange_, *this);
  if (stopped_ && options_.on_interrupt == "snapshot" && !solver_->settings().snapshot_after_train && rank() == 0) {
    on_snapshot({.iteration = solver_->iteration(), .files = solver_->snapshot(*exchange_)});
  }
  exchange_->settle_all();
  solver_->finish();
  compare_replicas();
  tell_progress();
  tell_timeline();
  tell_end(before, start, first);
  const Status left = worker_->leave();
  if (!left) throw aten::JobOver(left.error());
}

// May the iteration begin? No: all workers stop here. Throws when the job is over for another reason.
bool TrainWorker::begin(Iteration iteration) {
  const bool go = worker_->begin(iteration);
  if (const std::optional<Error> error = worker_->error()) throw aten::JobOver(*error);
  return go;
}

caffe::Wish TrainWorker::wish(Iteration iterations_done) {
  if (iterations_done >= solver_->iterations_max()) return caffe::Wish::kGoOn;
  stopped_ = !begin(iterations_done);
  // The others need not save at the same iteration: saving waits for one's own sums, and changes nothing.
  bool is_asked = false;
  while (asked_.next() != 0) is_asked = true;
  return stopped_ ? caffe::Wish::kStop : is_asked ? caffe::Wish::kSnapshot : caffe::Wish::kGoOn;
}

void TrainWorker::on_iteration(const caffe::IterationReport& report) {
  untold_.push_back({report.iteration, report.loss, report.smoothed_loss, report.rate, report.records, report.seconds, report.display, {}});
  if (report.display) {
    for (const caffe::TestScore& score : caffe::last_scores(solver_->net())) untold_.back().outputs.push_back({score.name, score.value, score.loss_weight});
  }
  if (report.display || Clock::now() - told_ >= kTellEvery) tell_progress();
}

void TrainWorker::tell_progress() {
  if (untold_.empty()) return;
  worker_->note(encode(ProgressNote{std::exchange(untold_, {}), exchange_->wait_seconds()}));
  told_ = Clock::now();
}

void TrainWorker::on_test(const caffe::TestReport& report) {
  compare_replicas();
  tell_progress();
  if (rank() != 0) return;  // all have the same
  TestNote note{report.iteration, report.net, {}, report.loss};
  for (const caffe::TestScore& score : report.scores) note.scores.push_back({score.name, score.value, score.loss_weight});
  worker_->note(encode(note));
}

void TrainWorker::on_snapshot(const caffe::SnapshotReport& report) {
  tell_progress();
  worker_->note(encode(SnapshotNote{report.iteration, report.files.model.string(), report.files.state.string()}));
}

std::vector<std::string> TrainWorker::gather(const std::string& own) {
  Result<std::vector<std::string>> all = worker_->gather(own);
  if (!all) throw aten::JobOver(all.error());
  return std::move(*all);
}

// As hexadecimal floats: exact, and infinities and NaN survive.
std::vector<caffe::BatchScores> TrainWorker::gather(std::vector<caffe::BatchScores> own) {
  json mine = json::array();
  for (const caffe::BatchScores& batch : own) {
    json values = json::array();
    for (const double value : batch.values) {
      char text[64];
      std::snprintf(text, sizeof text, "%a", value);
      values.push_back(text);
    }
    mine.push_back({batch.batch, values});
  }
  std::vector<caffe::BatchScores> all;
  for (const std::string& body : gather(mine.dump())) {
    for (const json& entry : json::parse(body)) {
      caffe::BatchScores batch{entry.at(0).get<std::uint64_t>(), {}};
      for (const json& value : entry.at(1)) batch.values.push_back(std::strtod(value.get_ref<const std::string&>().c_str(), nullptr));
      all.push_back(std::move(batch));
    }
  }
  return all;
}

// Replicas make the same updates from the same sums, so their parameters are equal in every bit; where they are not,
// something is broken (memory, a library that differs), and training on would hide it.
void TrainWorker::compare_replicas() {
  if (job_.workers == 1) return;
  const std::vector<std::string> digests = gather(solver_->net().digest());
  if (std::all_of(digests.begin(), digests.end(), [&](const std::string& d) { return d == digests[0]; })) return;
  json arrays = json::array();
  for (const aten::LayerParameters& layer : solver_->net().parameters()) {
    for (const at::Tensor& parameter : layer.parameters) {
      const TensorView view = aten::view_of(parameter);
      base::Sha256 hash;
      hash.update(std::span<const std::byte>(view.data, view.bytes));
      arrays.push_back(base::to_hex(hash.finish()));
    }
  }
  const std::vector<std::string> all = gather(arrays.dump());
  const json first = json::parse(all[0]);
  const Model& model = aten::model_of(solver_->net().parameters());
  for (std::size_t r = 1; r < all.size(); ++r) {
    const json other = json::parse(all[r]);
    for (std::size_t t = 0; t < first.size(); ++t) {
      if (first[t] == other[t]) continue;
      throw std::runtime_error(base::concat("the replicas differ after ", solver_->iteration(), " iterations: ", model.tensors[t].name,
                                            " of rank ", r, " is not that of rank 0"));
    }
  }
}

void TrainWorker::tell_end(const cluster::Worker::Traffic& before, Clock::time_point start, Iteration first) {
  const cluster::Worker::Traffic after = worker_->traffic();
  FinalNote note{.iterations = solver_->iteration() - first,
                 .iteration = solver_->iteration(),
                 .seconds = seconds_since(start),
                 .wait_seconds = exchange_->wait_seconds(),
                 .digest = solver_->digest(*exchange_),
                 .layers = {},
                 .bytes_sent = after.bytes_sent - before.bytes_sent,
                 .bytes_received = after.bytes_received - before.bytes_received,
                 .staging_bytes_max = after.engine.staging_bytes_max};
  const std::vector<LayerSpec> layers = aten::model_of(solver_->net().parameters()).layers;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerSpec& layer = layers[l];
    LayerTraffic traffic{layer.name, 0, 0};
    if (const auto rows = exchange_->row_traffic(LayerId{static_cast<std::uint32_t>(l)})) {
      traffic = {.name = layer.name, .bytes_sent = rows->bytes_sent, .bytes_received = rows->bytes_received, .rows = true};
    }
    for (const TensorId t : layer.tensors) {
      traffic.bytes_sent += after.engine.tensors[index(t)].sent - before.engine.tensors[index(t)].sent;
      traffic.bytes_received += after.engine.tensors[index(t)].received - before.engine.tensors[index(t)].received;
    }
    note.layers.push_back(std::move(traffic));
  }
  worker_->note(encode(note));
}

// To a launcher that may be on another host.
void TrainWorker::tell_timeline() {
  if (!timeline_ || !options_.where.given()) return;
  const std::string part = timeline_->part();
  for (std::size_t begin = 0; begin < part.size(); begin += kTimelineSliceBytes) {
    worker_->note(encode(TimelineNote{part.substr(begin, kTimelineSliceBytes)}));
  }
}

// For a launcher on this host: also when the job is over, and takes no notes any more.
void TrainWorker::write_timeline() {
  const char* const folder = std::getenv("POSEIDON_RUN_FOLDER");
  if (!timeline_ || folder == nullptr || options_.where.given()) return;
  const Status written = timeline_->write_part(timeline_part(folder, rank()));
  if (!written) base::log::warning(written.error().message);
}

}  // namespace

int run_train_worker(const TrainOptions& options, const cluster::JobAddress& job) {
  const int rank = static_cast<int>(index(job.rank));
  outlive_file_limits();
  base::log::configure(base::concat("rank ", rank), base::log::Level::kInfo);
  std::signal(launch::kTellSignal, SIG_IGN);  // what still waits when it is unblocked in the end must not kill us
  TrainWorker worker(options, job);
  const auto fail = [&](const Error& error, int code) {
    base::log::error(error.message);
    worker.fail(error);
    return code;
  };
  try {
    worker.prepare();
    worker.join();
    base::log::info(base::concat("joined a job of ", job.workers, " workers"));
    worker.train();
    worker.write_timeline();
    base::log::info("done");
    return kSuccess;
  } catch (const aten::JobOver& over) {
    // The coordinator knows already; except where it could not be reached at all.
    base::log::error(over.error().message);
    launch::report_error(rank, over.error());
    worker.write_timeline();
    return exit_code_of(over.error().code);
  } catch (const caffe::ConfigError& error) {
    return fail({ErrorCode::kInvalid, error.what()}, kWrongInput);
  } catch (const caffe::SystemError& error) {
    return fail({ErrorCode::kSystem, error.what()}, kSystem);
  } catch (const std::bad_alloc&) {
    return fail({ErrorCode::kSystem, "out of memory"}, kSystem);
  } catch (const c10::Error& error) {
    return fail({ErrorCode::kSystem, error.what_without_backtrace()}, kBroken);
  } catch (const std::exception& error) {
    return fail({ErrorCode::kSystem, error.what()}, kBroken);
  }
}

}  // namespace poseidon::app
