#include "engines/caffe/solver/snapshot.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <span>
#include <utility>

#include "base/checksum.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/net/trained_net.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/solver_state_file.h"

namespace poseidon::caffe {
namespace {

namespace fs = std::filesystem;

std::string sha256(std::string_view bytes) {
  base::Sha256 sum;
  sum.update(bytes);
  return base::to_hex(sum.finish());
}

std::string dtype_name(const Net& net) {
  return net.dtype() == at::kDouble ? "float64" : "float32";
}

// The first layer where data enters says whose records are counted.
std::string data_layer(const Net& net) {
  for (const Step& step : net.steps()) {
    if (step.layer->records_per_batch() > 0) return step.layer->name();
  }
  return "";
}
std::string test_position_name(std::size_t test_net) {
  return base::concat("test net ", test_net);
}

proto::SolverState state_of(const SnapshotFiles& files, const Net& net, const Progress& progress,
                            const SnapshotIdentity& identity, const SnapshotNotes& notes) {
  proto::ResumeState resume{.model_sha256 = {},
                            .data_positions = {{.layer = data_layer(net), .next_record = progress.train_records}},
                            .random_seed = static_cast<std::int64_t>(identity.seed),
                            .dtype = dtype_name(net),
                            .solver_type = identity.solver_type,
                            .workers = static_cast<std::uint32_t>(notes.workers),
                            .update = identity.update};
  for (const CarriedState& carried : progress.carried) {
    proto::CarriedBlobs& into = resume.carried.emplace_back(proto::CarriedBlobs{.layer = carried.layer, .blobs = {}});
    for (const at::Tensor& state : carried.state) into.blobs.push_back(to_blob(state));
  }
  for (std::size_t i = 0; i < progress.test_records.size(); ++i) {
    resume.data_positions.push_back({.layer = test_position_name(i), .next_record = progress.test_records[i]});
  }
  proto::SolverState state{.iteration = static_cast<std::int64_t>(progress.iteration),
                           .model_file = files.model.string(),
                           .current_step = static_cast<std::int64_t>(notes.policy_steps),
                           .history = {},
                           .resume = std::move(resume)};
  for (const std::vector<at::Tensor>& arrays : progress.history) {
    for (const at::Tensor& array : arrays) state.history.push_back(to_blob(array));
  }
  return state;
}

// The model that the state names; or beside the state, where both were moved together.
fs::path find_model(const fs::path& state_file, const std::string& named) {
  const fs::path beside = state_file.parent_path() / fs::path(named).filename();
  for (const fs::path& candidate : {fs::path(named), beside}) {
    if (!named.empty() && fs::is_regular_file(candidate)) return candidate;
  }
  throw ConfigError(base::concat(state_file.string(), ": its model ", named,
                                 " is missing, also beside it; a snapshot is a pair of files"));
}

std::string read_checked_model(const fs::path& state_file, const proto::SolverState& state, const fs::path& model) {
  Result<std::string> bytes = base::read_file(model);
  if (!bytes) throw ConfigError(base::concat(state_file.string(), ": ", bytes.error().message));
  if (state.resume && sha256(*bytes) != state.resume->model_sha256) {
    throw ConfigError(base::concat(state_file.string(), ": its model ", model.string(),
                                   " is not the one that was written with it (its SHA-256 is another); take both files "
                                   "from one snapshot"));
  }
  return *std::move(bytes);
}

void check_identity(const std::string& file, const proto::ResumeState& resume, const SnapshotIdentity& identity,
                    const Net& net) {
  if (resume.dtype != dtype_name(net)) {
    throw ConfigError(base::concat(file, ": is a snapshot in ", resume.dtype, ", and this training is in ",
                                   dtype_name(net), "; go on with --dtype ", resume.dtype,
                                   ", or begin with the model alone (--weights)"));
  }
  if (resume.solver_type != identity.solver_type) {
    throw ConfigError(base::concat(file, ": is a snapshot of solver type ", resume.solver_type, ", and this one is ",
                                   identity.solver_type, ": their histories mean different things"));
  }
  if (resume.update != identity.update) {
    throw ConfigError(base::concat(file, ": is a snapshot of a training with --update ", resume.update,
                                   ", and this one has --update ", identity.update, "; go on with --update ",
                                   resume.update, ", or begin with the model alone (--weights)"));
  }
  if (static_cast<std::uint64_t>(resume.random_seed) != identity.seed) {
    throw ConfigError(base::concat(file, ": was made with random_seed ", resume.random_seed, ", and this solver's is ",
                                   identity.seed, "; write random_seed: ", resume.random_seed, " in the solver file"));
  }
}

// A net of which every layer with arrays is in the model, and no other.
void check_net(const std::string& file, const proto::TrainedNet& trained, const Net& net) {
  std::vector<std::string> wanted;
  for (const Step& step : net.steps()) {
    if (!step.layer->parameters().empty()) wanted.push_back(step.layer->name());
  }
  std::vector<std::string> found;
  for (const proto::TrainedLayer& layer : trained.layers) {
    const Step* const step = net.find_layer(layer.name);
    const bool may_be_empty = step != nullptr && !step->layer->parameters().empty();
    if (!layer.blobs.empty() || may_be_empty) found.push_back(layer.name);
  }
  // Files in HDF5 have layers in the order of their names, and no arrays with those that use others' alone.
  std::sort(found.begin(), found.end());
  std::sort(wanted.begin(), wanted.end());
  if (found != wanted) {
    throw ConfigError(base::concat(file, ": is of another net: its layers with arrays are ", base::join_words(found),
                                   ", and this net's are ", base::join_words(wanted)));
  }
  check_trained(trained, file, net, ": it is of another net");
}

void check_history(const std::string& file, const proto::SolverState& state, const Net& net, const Progress& progress) {
  const std::size_t arrays = net.arrays().size();
  if (state.history.size() != progress.history.size() * arrays) {
    throw ConfigError(base::concat(file, ": is of another net: it has ", state.history.size(),
                                   " arrays of history, and ", arrays, " trained arrays need ",
                                   progress.history.size() * arrays));
  }
  for (std::size_t i = 0; i < state.history.size(); ++i) {
    const NetArray& array = net.arrays()[i % arrays];
    if (state.history[i].count() == static_cast<std::size_t>(elements_of(array.shape))) continue;
    throw ConfigError(base::concat(file, ": is of another net: its array of history ", i, " is ",
                                   base::readable_shape(state.history[i].shape), ", and ", array.name, " is ",
                                   base::readable_shape(array.shape)));
  }
}

}  // namespace

SnapshotFiles snapshot_files(const std::string& prefix, Iteration iteration, SnapshotFormat format) {
  const std::string stem = base::concat(prefix, "_iter_", iteration);
  const std::string end = format == SnapshotFormat::kHdf5 ? ".h5" : "";
  return {.model = stem + ".caffemodel" + end, .state = stem + ".solverstate" + end, .format = format};
}

Status write_snapshot(const SnapshotFiles& files, const Net& net, const Progress& progress,
                      const SnapshotIdentity& identity, const SnapshotNotes& notes) {
  const auto in_format = [&](Result<std::string> bytes, Hdf5Conversion conversion, const fs::path& file) {
    const bool hdf5 = bytes && files.format == SnapshotFormat::kHdf5;
    return hdf5 ? Result<std::string>(convert_hdf5(conversion, *bytes, file.string())) : std::move(bytes);
  };
  const Result<std::string> model =
      in_format(proto::model_bytes(trained_net(net, notes.diffs)), Hdf5Conversion::kModelTo, files.model);
  if (!model) return model.error();
  proto::SolverState state = state_of(files, net, progress, identity, notes);
  state.resume->model_sha256 = sha256(*model);
  const Result<std::string> state_bytes =
      in_format(proto::solver_state_bytes(state), Hdf5Conversion::kStateTo, files.state);
  if (!state_bytes) return state_bytes.error();
  if (Status written = base::write_file_atomically(files.model, *model); !written) return written;
  Status written = base::write_file_atomically(files.state, *state_bytes);
  if (!written) {  // most likely the disk is full, and half a pair only takes room
    std::error_code ignored;
    fs::remove(files.model, ignored);
  }
  return written;
}

bool restore_snapshot(const fs::path& state_file, const SnapshotIdentity& identity, Net& net, Progress& progress) {
  const std::string file = state_file.string();
  const proto::SolverState state = read_any_solver_state(state_file);
  const fs::path model = find_model(state_file, state.model_file);
  const std::string bytes = read_checked_model(state_file, state, model);
  const proto::TrainedNet trained = parse_any_model(bytes, model.string());
  if (state.resume) check_identity(file, *state.resume, identity, net);
  check_net(model.string(), trained, net);
  check_history(file, state, net, progress);
  copy_trained(trained, model.string(), net);
  for (std::size_t i = 0; i < state.history.size(); ++i) {
    restore(state.history[i], progress.history[i / net.arrays().size()][i % net.arrays().size()]);
  }
  progress.iteration = static_cast<Iteration>(state.iteration);
  progress.carried.clear();
  if (!state.resume) return false;
  for (const proto::CarriedBlobs& carried : state.resume->carried) {
    CarriedState& into = progress.carried.emplace_back(CarriedState{.layer = carried.layer, .state = {}});
    for (const proto::Blob& blob : carried.blobs) {
      into.state.push_back(at::empty(blob.shape, at::TensorOptions().dtype(net.dtype())));
      restore(blob, into.state.back());
    }
  }
  for (const proto::DataPosition& position : state.resume->data_positions) {
    if (position.layer == data_layer(net)) progress.train_records = position.next_record;
    for (std::size_t i = 0; i < progress.test_records.size(); ++i) {
      if (position.layer == test_position_name(i)) progress.test_records[i] = position.next_record;
    }
  }
  return true;
}

}  // namespace poseidon::caffe
