// A solver whose nets keep their blobs: what pycaffe's solvers are.
//
// It makes the solver's own iterations, tests, snapshots and updates, in a process that trains alone; only the training
// net's passes are run layer by layer. Where the solver puts an update off until the next pass needs it, here it is
// made at once, so a script sees the new values between two steps. As in Caffe an array's `diff` is the gradient until
// the update, and after it what the update has taken from the array.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engines/caffe/python/kept_net.h"
#include "engines/caffe/solver/solver.h"
#include "engines/torch/local_exchange.h"

namespace poseidon::caffe::python {

struct TrainerOptions {
  std::string type;  // of the update rule; empty: the file's
  at::ScalarType dtype = at::kFloat;
  std::uint64_t seed = 1;  // where the file has no random_seed
};

// Called on the training thread; what they throw ends the call that trains.
struct TrainerEvents {
  std::function<void()> on_start = [] {};            // before an iteration's first pass
  std::function<void()> on_gradients_ready = [] {};  // before its update
  std::function<void()> on_done = [] {};             // after its update
};

class Trainer final : private SolverHost {
 public:
  // Throws ConfigError.
  Trainer(const std::filesystem::path& file, const LayerRegistry& layers, const TrainerOptions& options,
          TrainerEvents events);

  KeptNet& net() { return *net_; }
  const std::vector<std::unique_ptr<KeptNet>>& test_nets() const { return test_nets_; }
  Iteration iteration() const { return solver_.iteration(); }

  void step(Iteration iterations);
  // To max_iter, with the snapshot and the test at the end.
  void solve();
  // One update by what is in the arrays' `diff`, and no iteration.
  void apply_update();
  std::filesystem::path snapshot();
  void restore(const std::filesystem::path& state) { solver_.restore(state); }

 private:
  SolverOptions solver_options(const TrainerOptions& options);
  // A new one for each call from Python: nothing is left in it of a call that has ended with an exception.
  aten::LocalExchange& new_exchange();
  double run_pass(const Pass& pass);
  void update();

  void on_iteration(const IterationReport& report) override;
  void on_test(const TestReport& report) override;
  void on_snapshot(const SnapshotReport& report) override;

  TrainerEvents events_;
  bool begins_ = true;  // the next pass is an iteration's first
  Solver solver_;
  std::optional<aten::LocalExchange> exchange_;
  std::unique_ptr<KeptNet> net_;
  std::vector<std::unique_ptr<KeptNet>> test_nets_;
};

}  // namespace poseidon::caffe::python
