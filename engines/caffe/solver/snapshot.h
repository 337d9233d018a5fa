// A training's state on disk: a model and, beside it, what else it takes to go on bit for bit.
//
// The model is written first and the state last, with the model's SHA-256, both atomically: a state that exists has its
// model, and a model that was changed since is noticed. Both are in Caffe's protobuf form or in HDF5; when they are
// read, their bytes say which.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "engines/caffe/net/net.h"
#include "engines/caffe/solver/snapshot_format.h"
#include "poseidon/error.h"

namespace poseidon::caffe {

// What a recurrent layer carries from one batch to the next: tensors [streams of all workers, ...], in the order of
// ranks. A layer of a test net is called "test net 0/lstm".
struct CarriedState {
  std::string layer;
  std::vector<at::Tensor> state;
};

// Where a training stands. `history[h][a]` is the h-th array of history of Net::arrays()[a].
struct Progress {
  Iteration iteration = 0;
  std::uint64_t train_records = 0;          // where the next iteration's global batch begins
  std::vector<std::uint64_t> test_records;  // per test net: where its next test begins
  std::vector<std::vector<at::Tensor>> history;
  std::vector<CarriedState> carried = {};
};

// What must be the same when training goes on.
struct SnapshotIdentity {
  std::uint64_t seed = 0;
  std::string solver_type;  // "SGD"
  std::string update;       // "average"
};

struct SnapshotFiles {
  std::filesystem::path model;  // PREFIX_iter_N.caffemodel, or .caffemodel.h5
  std::filesystem::path state;  // PREFIX_iter_N.solverstate, or .solverstate.h5
  SnapshotFormat format = SnapshotFormat::kProtobuf;
};
SnapshotFiles snapshot_files(const std::string& prefix, Iteration iteration,
                             SnapshotFormat format = SnapshotFormat::kProtobuf);

struct SnapshotNotes {
  std::size_t policy_steps = 0;            // how often a multistep policy has fallen; Caffe wants to know
  int workers = 1;                         // for the log
  std::span<const at::Tensor> diffs = {};  // as trained_net takes them
};

// Where one of the files cannot be written there is none in the end.
Status write_snapshot(const SnapshotFiles& files, const Net& net, const Progress& progress,
                      const SnapshotIdentity& identity, const SnapshotNotes& notes);

// Reads the state and its model into the net and `progress`, whose lists have the sizes that this training needs.
// Throws ConfigError, before anything is changed, where the model is missing or not the one that was written with the
// state, or where net, type of numbers, solver or seed are others. A snapshot of Caffe's own has no data positions:
// then `train_records` is left alone and false returned.
bool restore_snapshot(const std::filesystem::path& state, const SnapshotIdentity& identity, Net& net,
                      Progress& progress);

}  // namespace poseidon::caffe
