// Caffe's models and snapshots in HDF5: .caffemodel.h5 and .solverstate.h5. Only in child processes (hdf5_file.h).
//
// A model has a group `data` with a group for each layer, also for those without arrays, and in that a dataset for each
// array, named by its number; with snapshot_diff a group `diff` of the same form. An array that several layers share is
// in `data` with the first of them only, and in `diff` with all.
//
// A state has `iter`, `learned_net` (the name of the model) and `current_step`, and a group `history` with its arrays
// by number. What Poseidon needs besides, to go on bit for bit, is in a group `poseidon`, which Caffe passes over.
#pragma once

#include <string>
#include <string_view>

#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/solver_state_file.h"

namespace poseidon::caffe {

// Layers come in the order of their names, without types. Throw ConfigError.
proto::TrainedNet parse_hdf5_model(std::string_view bytes, const std::string& file_name);
proto::SolverState parse_hdf5_state(std::string_view bytes, const std::string& file_name);

std::string hdf5_model_bytes(const proto::TrainedNet& net);
std::string hdf5_state_bytes(const proto::SolverState& state);

}  // namespace poseidon::caffe
