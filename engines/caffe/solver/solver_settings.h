// What a SolverParameter says, as plain values: read once, checked together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engines/caffe/net/net_state.h"
#include "engines/caffe/proto/message.h"
#include "engines/caffe/solver/rate_policy.h"
#include "engines/caffe/solver/snapshot_format.h"

namespace poseidon::caffe {

struct NetSource {
  proto::Message net;  // a NetParameter
  NetState state;
};

struct TestSource {
  NetSource source;
  std::uint64_t iterations = 0;  // batches per test
};

struct SolverSettings {
  NetSource train;
  std::vector<TestSource> tests;
  Iteration test_interval = 0;  // 0: no tests
  bool test_initialization = true;

  RatePolicy rate;
  double weight_decay = 0;
  Iteration max_iterations = 0;
  Iteration display = 0;    // 0: no progress
  bool debug_info = false;  // in iterations that `display` asks for
  std::uint64_t average_loss = 1;
  std::uint64_t batches_per_iteration = 1;  // iter_size: of each worker
  std::optional<double> gradient_norm_max;  // clip_gradients

  Iteration snapshot = 0;  // 0: none on the way
  std::string snapshot_prefix;
  bool snapshot_after_train = true;
  bool snapshot_diff = false;
  SnapshotFormat snapshot_format = SnapshotFormat::kProtobuf;

  std::optional<std::uint64_t> random_seed;
  std::vector<std::string> weights;  // model files to begin with
};

// Reads the net files too. Throws ConfigError with the position of what is missing, contradicts itself, or is not
// supported yet; warns of what makes no difference here (solver_mode: GPU without one).
SolverSettings read_solver_settings(const proto::Message& solver);

}  // namespace poseidon::caffe
