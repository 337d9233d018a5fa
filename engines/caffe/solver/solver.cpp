#include "engines/caffe/solver/solver.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/net/debug_info.h"
#include "engines/caffe/net/trained_net.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

// In double, and not as the square of a root: sums of squares of several arrays make one norm. Row by row, because ATen
// adds a whole array in an order that depends on the number of threads, in which workers may differ.
double squared_norm(const at::Tensor& gradient) {
  constexpr std::int64_t kRow = 4096;
  if (!gradient.defined()) return 0;
  const at::Tensor flat = gradient.flatten();
  const std::int64_t whole = flat.numel() / kRow * kRow;
  double squares = flat.slice(0, whole).to(at::kDouble).square().sum().item<double>();
  if (whole == 0) return squares;
  const at::Tensor rows = flat.slice(0, 0, whole).view({-1, kRow}).to(at::kDouble).square().sum(1);
  return std::accumulate(rows.const_data_ptr<double>(), rows.const_data_ptr<double>() + rows.numel(), squares);
}

// A folder that is not there, or not ours to write, is noticed before training and not at its end.
void prepare_folder(const std::string& prefix) {
  const std::filesystem::path folder = std::filesystem::path(prefix).parent_path();
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw SystemError(base::concat("snapshot_prefix \"", prefix, "\": the folder ", folder.string(),
                                   " cannot be made: ", error.message()));
  }
}

}  // namespace

std::string_view to_string(Update update) {
  return update == Update::kAverage ? "average" : "sum";
}

Solver::Solver(const proto::Message& solver, const LayerRegistry& layers, const SolverOptions& options)
    : settings_(read_solver_settings(solver)), options_(options), rule_(read_update_rule(solver, options.type)) {
  if (!options_.iterations_max && !solver.has("max_iter")) {
    throw ConfigError(base::concat(solver.position().text(), ": the solver needs max_iter"));
  }
  NetState& state = settings_.train.state;
  state.level = options_.train_level.value_or(state.level);
  state.stages.insert(state.stages.end(), options_.train_stages.begin(), options_.train_stages.end());
  train_net_ = std::make_unique<Net>(
      settings_.train.net, layers,
      NetOptions{.state = settings_.train.state,
                 .dtype = options_.dtype,
                 .seed = seed(),
                 .worker = options_.worker,
                 .sync_batch_norm = options_.sync_batch_norm,
                 .events = options_.events});
  build_test_nets(layers);
  make_history();
  if (settings_.snapshot_diff) last_steps_.resize(train_net_->arrays().size());
  for (const std::string& model : settings_.weights) load_weights(model);
}

void Solver::build_test_nets(const LayerRegistry& layers) {
  for (const TestSource& test : settings_.tests) {
    test_nets_.push_back(std::make_unique<Net>(
        test.source.net, layers,
        NetOptions{.state = test.source.state,
                   .dtype = options_.dtype,
                   .seed = seed(),
                   .worker = options_.worker,
                   .share_with = train_net_.get()}));
  }
  progress_.test_records.assign(test_nets_.size(), 0);
}

void Solver::make_history() {
  progress_.history.resize(rule_->histories());
  for (std::vector<at::Tensor>& arrays : progress_.history) {
    for (const NetArray& array : train_net_->arrays()) arrays.push_back(at::zeros_like(array.value.detach()));
  }
}

SnapshotIdentity Solver::identity() const {
  return {.seed = seed(), .solver_type = std::string(rule_->type()), .update = std::string(to_string(options_.update))};
}

std::vector<aten::LayerParameters> Solver::parameters() const {
  std::vector<aten::LayerParameters> layers = train_net_->parameters();
  for (aten::LayerParameters& layer : layers) {
    layer.factor_rows *= settings_.batches_per_iteration;
    layer.touched_rows *= settings_.batches_per_iteration;
  }
  return layers;
}

std::uint64_t Solver::records_per_iteration() const {
  return train_net_->records_per_batch() * settings_.batches_per_iteration;
}

aten::UpdateFn Solver::update_function() {
  return [this](const aten::SummedGradient& gradient) { receive(gradient); };
}

void Solver::receive(const aten::SummedGradient& gradient) {
  const ReceivedGradient received{
      .array = train_net_->array_of(gradient.layer, gradient.parameter),
      .iteration = gradient.iteration,
      .sum = gradient.contributors > 0 ? gradient.sum : at::Tensor(),
      .workers = options_.update == Update::kSum ? 1.0 : std::max<std::uint32_t>(1, gradient.contributors)};
  if (!settings_.gradient_norm_max) return update(received, 1);
  received_[received.array] = received;
  std::size_t trained = 0;
  for (const aten::LayerParameters& layer : train_net_->parameters()) trained += layer.parameters.size();
  if (received_.size() < trained) return;
  // In the order of the arrays, not of arrival: the same on all workers, in every bit.
  double squares = 0;
  for (const auto& [number, one] : received_) squares += squared_norm(one.sum) / (one.workers * one.workers);
  const double norm = std::sqrt(squares);
  const double clipping = norm > *settings_.gradient_norm_max ? *settings_.gradient_norm_max / norm : 1;
  for (const auto& [number, one] : std::exchange(received_, {})) update(one, clipping);
}

void Solver::update(const ReceivedGradient& gradient, double clipping) {
  const NetArray& array = train_net_->arrays()[gradient.array];
  std::vector<at::Tensor> history;
  for (const std::vector<at::Tensor>& arrays : progress_.history) history.push_back(arrays[gradient.array]);
  const double divisor = gradient.workers * static_cast<double>(settings_.batches_per_iteration) / clipping;
  if (settings_.debug_info && displays(gradient.iteration)) tell_update(array, gradient.sum, divisor);
  // Caffe's update leaves its step where the gradient was, so that is what its snapshots have for a diff.
  const at::Tensor before = settings_.snapshot_diff ? array.value.detach().clone() : at::Tensor();
  rule_->update({.value = array.value,
                 .gradient_sum = gradient.sum,
                 .divisor = divisor,
                 .rate = rate_at(settings_.rate, gradient.iteration) * array.lr_mult.value_or(1),
                 .decay = settings_.weight_decay * array.decay_mult.value_or(1),
                 .iteration = gradient.iteration,
                 .history = history});
  if (before.defined()) last_steps_[gradient.array] = before - array.value.detach();
}

void Solver::load_weights(const std::filesystem::path& model) {
  copy_trained(read_any_model(model), model.string(), *train_net_);
}

void Solver::restore(const std::filesystem::path& state) {
  position_unknown_ = !restore_snapshot(state, identity(), *train_net_, progress_);
  last_snapshot_ = progress_.iteration;
  hand_out_carried();
}

IterationReport Solver::step(aten::GradientExchange& exchange) {
  const auto begin = std::chrono::steady_clock::now();
  const std::uint64_t batch = train_net_->records_per_batch();
  const std::uint64_t global_batch = batch * static_cast<std::uint64_t>(exchange.workers());
  const std::uint64_t batches = settings_.batches_per_iteration;
  if (std::exchange(position_unknown_, false)) progress_.train_records = progress_.iteration * batches * global_batch;
  if (settings_.gradient_norm_max) exchange.settle_all();
  progress_.carried.clear();
  const Iteration iteration = progress_.iteration;
  exchange.begin(iteration);
  double loss = 0;
  for (std::uint64_t i = 0; i < batches; ++i) {
    exchange.accumulate(i + 1 < batches);
    const std::uint64_t first = progress_.train_records + batch * static_cast<std::uint64_t>(exchange.rank());
    loss += forward_backward(exchange, first, global_batch) / static_cast<double>(batches);
    progress_.train_records += global_batch;
  }
  progress_.iteration += 1;
  return {.iteration = iteration,
          .loss = loss,
          .smoothed_loss = smoothed(loss),
          .rate = rate_at(settings_.rate, iteration),
          .records = records_per_iteration(),
          .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
          .display = displays(iteration)};
}

double Solver::forward_backward(aten::GradientExchange& exchange, std::uint64_t first_record, std::uint64_t stride) {
  const Pass pass{.iteration = progress_.iteration,
                  .first_record = first_record,
                  .record_stride = stride,
                  .exchange = &exchange,
                  .debug_info = settings_.debug_info && displays(progress_.iteration)};
  if (options_.run_pass) return options_.run_pass(pass);
  const at::Tensor loss = train_net_->forward(pass);
  train_net_->backward();
  return loss.item<double>();
}

double Solver::smoothed(double loss) {
  last_losses_.push_back(loss);
  if (last_losses_.size() > settings_.average_loss) last_losses_.pop_front();
  return std::accumulate(last_losses_.begin(), last_losses_.end(), 0.0) / static_cast<double>(last_losses_.size());
}

bool Solver::train(aten::GradientExchange& exchange, SolverHost& host) {
  const bool saves = settings_.snapshot > 0 || settings_.snapshot_after_train;
  if (saves && host.writes_snapshots()) prepare_folder(settings_.snapshot_prefix);
  const bool finished = advance(exchange, host, iterations_max());
  exchange.settle_all();
  average_statistics(exchange);
  collect_carried(exchange);
  if (settings_.snapshot_after_train && last_snapshot_ != iteration()) save(exchange, host);
  if (finished && test_is_due(iteration())) test(exchange, host);
  return finished;
}

void Solver::finish() {
  train_net_->finish();
  for (const std::unique_ptr<Net>& net : test_nets_) net->finish();
}

bool Solver::advance(aten::GradientExchange& exchange, SolverHost& host, Iteration end) {
  bool stopped = false;
  while (!stopped && iteration() < end) {
    if (test_is_due(iteration()) && (iteration() > 0 || settings_.test_initialization)) test(exchange, host);
    host.on_iteration(step(exchange));
    const Wish wish = host.wish(iteration());
    stopped = wish == Wish::kStop;
    const bool due = settings_.snapshot > 0 && iteration() % settings_.snapshot == 0;
    if (due) {
      average_statistics(exchange);
      collect_carried(exchange);
    }
    // At a worker's wish, which the others need not share at this iteration, its own statistics must do.
    if (due || wish == Wish::kSnapshot) save(exchange, host);
  }
  return !stopped;
}

bool Solver::displays(Iteration iteration) const {
  return settings_.display > 0 && iteration % settings_.display == 0;
}

bool Solver::test_is_due(Iteration iteration) const {
  return !test_nets_.empty() && settings_.test_interval > 0 && iteration % settings_.test_interval == 0;
}

std::vector<BatchScores> Solver::test_batches(std::size_t test_net, std::uint64_t first, std::uint64_t stride) {
  return score_batches(*test_nets_[test_net], {.first = first,
                                               .stride = stride,
                                               .count = settings_.tests[test_net].iterations,
                                               .first_record = progress_.test_records[test_net],
                                               .iteration = iteration()});
}

void Solver::test(aten::GradientExchange& exchange, SolverHost& host) {
  exchange.settle_all();
  average_statistics(exchange);
  for (std::size_t i = 0; i < test_nets_.size(); ++i) {
    const Net& net = *test_nets_[i];
    const std::uint64_t batches = settings_.tests[i].iterations;
    std::vector<BatchScores> own =
        test_batches(i, static_cast<std::uint64_t>(exchange.rank()), static_cast<std::uint64_t>(exchange.workers()));
    progress_.test_records[i] += batches * net.records_per_batch();
    TestScores means = averaged(net, host.gather(std::move(own)), batches);
    host.on_test({.iteration = iteration(), .net = i, .scores = std::move(means.scores), .loss = means.loss});
  }
}

SnapshotFiles Solver::snapshot(aten::GradientExchange& exchange) {
  exchange.settle_all();
  prepare_folder(settings_.snapshot_prefix);  // also for a snapshot that no setting has announced
  if (exchange.workers() == 1) collect_carried(exchange);
  if (progress_.carried.empty() && carries()) {
    base::log::warning(base::concat("the snapshot of iteration ", iteration(),
                                    " was not awaited by the other workers, so it is without the state that recurrent "
                                    "layers carry: sequences begin anew where it is resumed"));
  }
  const SnapshotFiles files = snapshot_files(settings_.snapshot_prefix, iteration(), settings_.snapshot_format);
  const Status written = write_snapshot(files, *train_net_, progress_, identity(),
                                        {.policy_steps = steps_reached(settings_.rate, iteration()),
                                         .workers = exchange.workers(),
                                         .diffs = last_steps_});
  if (!written)
    throw SystemError(base::concat("no snapshot of iteration ", iteration(), ": ", written.error().message));
  return files;
}

void Solver::save(aten::GradientExchange& exchange, SolverHost& host) {
  exchange.settle_all();
  last_snapshot_ = iteration();
  if (!host.writes_snapshots()) return;
  host.on_snapshot({.iteration = iteration(), .files = snapshot(exchange)});
}

// The workers' arrays that forward passes change, each by its own batches, become their mean.
void Solver::average_statistics(aten::GradientExchange& exchange) {
  if (exchange.workers() == 1) return;
  const c10::NoGradGuard no_graph;
  std::vector<at::Tensor> own;
  for (const NetArray& array : train_net_->arrays()) {
    if (array.is_statistic) own.push_back(array.value.detach().flatten().to(at::kDouble));
  }
  if (own.empty()) return;
  const std::vector<at::Tensor> all = exchange.gather(at::cat(own));
  at::Tensor mean = at::zeros_like(all[0]);
  for (const at::Tensor& one : all) mean += one;
  mean /= exchange.workers();
  std::int64_t begin = 0;
  for (const NetArray& array : train_net_->arrays()) {
    if (!array.is_statistic) continue;
    array.value.copy_(mean.slice(0, begin, begin + array.value.numel()).view(array.value.sizes()));
    begin += array.value.numel();
  }
}

template <typename What>
void Solver::for_each_net(const What& what) const {
  what(*train_net_, std::string());
  for (std::size_t i = 0; i < test_nets_.size(); ++i) what(*test_nets_[i], base::concat("test net ", i, "/"));
}

bool Solver::carries() const {
  bool any = false;
  for_each_net([&](const Net& net, const std::string&) {
    for (const Step& step : net.steps()) any = any || !step.layer->carried_state().empty();
  });
  return any;
}

// Each worker has the state of its own streams; a snapshot has all of them.
void Solver::collect_carried(aten::GradientExchange& exchange) {
  progress_.carried.clear();
  for_each_net([&](const Net& net, const std::string& prefix) {
    for (const Step& step : net.steps()) {
      CarriedState all{.layer = prefix + step.layer->name(), .state = {}};
      for (const at::Tensor& own : step.layer->carried_state()) {
        all.state.push_back(at::cat(exchange.gather(own.to(at::kDouble))).to(own.scalar_type()));
      }
      if (!all.state.empty()) progress_.carried.push_back(std::move(all));
    }
  });
}

void Solver::hand_out_carried() {
  const auto rank = static_cast<std::int64_t>(options_.worker.rank);
  const auto workers = static_cast<std::int64_t>(options_.worker.workers);
  for_each_net([&](const Net& net, const std::string& prefix) {
    for (const CarriedState& all : progress_.carried) {
      if (!all.layer.starts_with(prefix)) continue;
      const Step* const step = net.find_layer(all.layer.substr(prefix.size()));
      if (step == nullptr) continue;
      std::vector<at::Tensor> own;
      for (const at::Tensor& state : all.state) {
        if (state.dim() == 0 || state.size(0) % workers != 0) continue;
        const std::int64_t streams = state.size(0) / workers;
        own.push_back(state.slice(0, rank * streams, (rank + 1) * streams).clone());
      }
      step->layer->carry(own);
    }
  });
}

std::string Solver::digest(aten::GradientExchange& exchange) {
  exchange.settle_all();
  return train_net_->digest();
}

}  // namespace poseidon::caffe
