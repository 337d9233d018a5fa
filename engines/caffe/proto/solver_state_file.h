// Snapshots of a solver: Caffe's .solverstate, with what Poseidon adds so that training goes on bit for bit.
//
// A snapshot is a pair of files. The model is written first, then this, which names the model and holds the SHA-256 of
// its bytes: so a pair is complete when the state exists, and a mismatched pair is noticed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/proto/blob.h"
#include "poseidon/error.h"

namespace poseidon::caffe::proto {

// Where a data layer goes on: a record counter over all workers and all passes through the data base.
struct DataPosition {
  std::string layer;
  std::uint64_t next_record = 0;
};

// What a recurrent layer carries from one batch to the next.
struct CarriedBlobs {
  std::string layer;
  std::vector<Blob> blobs;
};

// What Caffe's own snapshots do not have.
struct ResumeState {
  std::string model_sha256;  // of the model file, 64 hexadecimal digits
  std::vector<DataPosition> data_positions;
  std::int64_t random_seed = 0;  // the one in use, also where the solver left it to the clock
  std::string dtype;             // "float32" or "float64"
  std::string solver_type;       // "SGD": what the history is a history of
  std::uint32_t workers = 0;     // for the log; any number may resume
  std::string update = "average";  // what workers' gradients became: that, or "sum"
  std::vector<CarriedBlobs> carried = {};
};

struct SolverState {
  std::int64_t iteration = 0;
  std::string model_file;             // Caffe's learned_net
  std::int64_t current_step = 0;      // how often the multistep policy has fallen
  std::vector<Blob> history;          // in the order of the trained arrays
  std::optional<ResumeState> resume;  // absent in a snapshot of Caffe's
};

// Throw ConfigError for a file that is missing, truncated, damaged, of another kind, or of a later format than this
// program's.
SolverState read_solver_state(const std::filesystem::path& file);
SolverState parse_solver_state(std::string_view bytes, std::string_view file_name);

// An error for a state over 2 GiB, which the format cannot hold.
Result<std::string> solver_state_bytes(const SolverState& state);
// Atomically: a full disk leaves an older file of that name as it was.
Status write_solver_state(const std::filesystem::path& file, const SolverState& state);

}  // namespace poseidon::caffe::proto
