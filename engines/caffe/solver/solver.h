// Trains a net as a SolverParameter says: batches, updates, tests, snapshots.
//
// The solver knows the exchange that it is given and the program around it (SolverHost), and no processes or sockets.
// On P workers each runs a solver of the same settings; iteration i then trains on P batches (P · iter_size, where that
// is set), whose gradients the exchange sums, and every solver makes the same update.
//
// An iteration's gradients are settled layer by layer during the next forward pass, so between two steps the arrays may
// be an update behind; before a test, a snapshot and the end everything is settled. With clip_gradients no array can be
// updated before the norm of all gradients is known, so each step begins by settling everything.
//
//   Solver solver(proto::read_text(file, "SolverParameter"), standard_layers(), {.dtype = at::kFloat});
//   aten::LocalExchange exchange(solver.parameters(), solver.update_function());
//   solver.train(exchange, host);
//
// All of it runs on one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event.h"
#include "engines/caffe/layers/registry.h"
#include "engines/caffe/net/net.h"
#include "engines/caffe/net/test_scores.h"
#include "engines/caffe/solver/snapshot.h"
#include "engines/caffe/solver/solver_settings.h"
#include "engines/caffe/solver/update_rule.h"
#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {

// What the workers' gradients become: their mean, by which P workers of batch b train as one with P·b; or their sum, as
// in Poseidon's first edition, where the rate of one worker counts for each.
enum class Update : std::uint8_t { kAverage, kSum };
std::string_view to_string(Update update);  // "average", "sum"

struct SolverOptions {
  at::ScalarType dtype = at::kFloat;
  std::uint64_t default_seed = 1;  // where the solver has no random_seed; equal on all workers
  // Train so many in all instead of max_iter. The rate policy keeps max_iter.
  std::optional<Iteration> iterations_max = {};
  // Of the training net's state: instead of the level of train_state, and beside its stages.
  std::optional<std::int64_t> train_level = {};
  std::vector<std::string> train_stages = {};
  bool sync_batch_norm = false;  // of the training net, as NetOptions has it
  std::string type = {};         // of the update rule, instead of the file's; empty: the file's
  // Runs a pass of the training net forward and backward and returns its loss; empty: the net does, as one graph. The
  // trained arrays' gradients are to be added to their .grad before the host's on_iteration returns.
  std::function<double(const Pass&)> run_pass = {};
  Update update = Update::kAverage;
  WorkerPlace worker = {};  // as the exchange will say it
  base::EventListener* events = nullptr;  // outlives the solver; may read span names while the solver lives
};

// One training iteration of this worker.
struct IterationReport {
  Iteration iteration = 0;   // from 0
  double loss = 0;           // the mean over this worker's batches, at the arrays before the update
  double smoothed_loss = 0;  // the mean over the last average_loss iterations
  double rate = 0;
  std::uint64_t records = 0;  // in this worker's batches
  double seconds = 0;         // from the beginning of the first forward pass to the end of the last backward pass
  bool display = false;       // the solver's `display` asks for a line
};

struct TestReport {
  Iteration iteration = 0;        // so many updates are in the arrays
  std::size_t net = 0;            // which test net
  std::vector<TestScore> scores;  // each element of each output by itself
  double loss = 0;                // the weighted sum of the losses
};

struct SnapshotReport {
  Iteration iteration = 0;
  SnapshotFiles files;
};

enum class Wish : std::uint8_t { kGoOn, kSnapshot, kStop };

// The program around a solver. The defaults are those of a program that trains alone and in silence.
class SolverHost {
 public:
  virtual ~SolverHost() = default;
  virtual void on_iteration(const IterationReport&) {}
  virtual void on_test(const TestReport&) {}
  virtual void on_snapshot(const SnapshotReport&) {}

  // Asked after each iteration; all workers must get the same answer for the same iteration.
  virtual Wish wish(Iteration /*iterations_done*/) { return Wish::kGoOn; }
  // Does this worker write the snapshots?
  virtual bool writes_snapshots() { return true; }
  // Takes the scores of the batches that this worker has tested and returns those of all workers, in any order.
  virtual std::vector<BatchScores> gather(std::vector<BatchScores> own) { return own; }
};

class Solver {
 public:
  // Builds the training net and the test nets. Throws ConfigError.
  Solver(const proto::Message& solver, const LayerRegistry& layers, const SolverOptions& options);
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  Net& net() { return *train_net_; }
  // They borrow the training net's arrays.
  const std::vector<std::unique_ptr<Net>>& test_nets() const { return test_nets_; }
  const SolverSettings& settings() const { return settings_; }
  // How many iterations are done, and how many there are to be.
  Iteration iteration() const { return progress_.iteration; }
  Iteration iterations_max() const { return options_.iterations_max.value_or(settings_.max_iterations); }

  // What the exchange must know of the net: Net::parameters, with the factors of all of an iteration's batches.
  std::vector<aten::LayerParameters> parameters() const;
  // In an iteration of this worker.
  std::uint64_t records_per_iteration() const;
  // The optimiser step, for the exchange; the solver outlives it.
  aten::UpdateFn update_function();

  // Copies trained arrays from a model file, by the names of layers.
  void load_weights(const std::filesystem::path& model);
  // Continues from a snapshot (its .solverstate); see restore_snapshot for what it refuses. Before the first step.
  void restore(const std::filesystem::path& state);

  // Trains from the present iteration to the last, with tests and snapshots on the way. Returns false where the host
  // wished to stop before.
  bool train(aten::GradientExchange& exchange, SolverHost& host);

  // The run is over, and well: layers complete the files that they write (Net::finish).
  void finish();

  // The parts of train(). Iterations until so many are done, with the tests that are due before them and the snapshots
  // that are due after them. Returns false where the host wished to stop before.
  bool advance(aten::GradientExchange& exchange, SolverHost& host, Iteration end);
  // One iteration: begin, then forward and backward for each of its batches.
  IterationReport step(aten::GradientExchange& exchange);
  // Tests batches first, first + stride, ... of a test net, at the arrays as they are. Batch t is records [t b, (t + 1)
  // b) behind those of the tests before, for any stride.
  std::vector<BatchScores> test_batches(std::size_t test_net, std::uint64_t first, std::uint64_t stride);
  // A whole test of every test net: this worker's batches, gathered by the host, averaged in their order.
  void test(aten::GradientExchange& exchange, SolverHost& host);
  // Settles everything and writes the pair of files. Throws SystemError where the disk does not take them.
  SnapshotFiles snapshot(aten::GradientExchange& exchange);

  // The arrays' digest (Net::digest), everything settled.
  std::string digest(aten::GradientExchange& exchange);

 private:
  // What is kept of a SummedGradient until the norm of all is known.
  struct ReceivedGradient {
    std::size_t array = 0;  // its number in Net::arrays
    Iteration iteration = 0;
    at::Tensor sum;  // undefined: nobody had a gradient
    double workers = 1;  // by which it is divided
  };

  void build_test_nets(const LayerRegistry& layers);
  void make_history();
  double forward_backward(aten::GradientExchange& exchange, std::uint64_t first_record, std::uint64_t stride);
  void receive(const aten::SummedGradient& gradient);
  void update(const ReceivedGradient& gradient, double clipping);
  void save(aten::GradientExchange& exchange, SolverHost& host);
  void average_statistics(aten::GradientExchange& exchange);
  void collect_carried(aten::GradientExchange& exchange);
  void hand_out_carried();
  bool carries() const;
  // Calls what(net, prefix) for the training net and the test nets: what the names of their layers begin with.
  template <typename What>
  void for_each_net(const What& what) const;
  bool displays(Iteration iteration) const;
  bool test_is_due(Iteration iteration) const;
  double smoothed(double loss);
  std::uint64_t seed() const { return settings_.random_seed.value_or(options_.default_seed); }
  SnapshotIdentity identity() const;

  SolverSettings settings_;
  SolverOptions options_;
  std::unique_ptr<UpdateRule> rule_;
  std::unique_ptr<Net> train_net_;
  std::vector<std::unique_ptr<Net>> test_nets_;  // borrow train_net_'s arrays
  Progress progress_;
  bool position_unknown_ = false;  // after a restore from a snapshot without data positions, until the next step
  std::optional<Iteration> last_snapshot_;
  std::deque<double> last_losses_;                    // at most average_loss
  std::vector<at::Tensor> last_steps_;                // with snapshot_diff: what the last update took from each array
  std::map<std::size_t, ReceivedGradient> received_;  // with clip_gradients, by array: of one iteration
};

}  // namespace poseidon::caffe
