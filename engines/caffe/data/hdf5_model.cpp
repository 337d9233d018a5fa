#include "engines/caffe/data/hdf5_model.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <set>

#include "base/text.h"
#include "engines/caffe/data/hdf5_file.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;
using hdf5::Object;

constexpr const char* kData = "data";
constexpr const char* kDiff = "diff";
constexpr const char* kHistory = "history";
constexpr const char* kIteration = "iter";
constexpr const char* kModel = "learned_net";
constexpr const char* kStep = "current_step";

// What Poseidon adds, in a group of its own.
constexpr const char* kResume = "poseidon";
constexpr const char* kFormat = "format";
constexpr const char* kSha256 = "model_sha256";
constexpr const char* kPositions = "data_position";
constexpr const char* kLayer = "layer";
constexpr const char* kNextRecord = "next_record";
constexpr const char* kSeed = "random_seed";
constexpr const char* kDtype = "dtype";
constexpr const char* kSolverType = "solver_type";
constexpr const char* kWorkers = "workers";
constexpr const char* kUpdate = "update";
constexpr const char* kCarried = "carried_state";
constexpr const char* kBlobs = "blobs";
constexpr std::int64_t kFormatNumber = 1;

// No layer has as many arrays, no solver as many histories, no net as many layers, and no name of a layer as many
// slashes. A damaged file has groups that contain themselves.
constexpr std::size_t kArraysMax = 1'000'000;
constexpr std::size_t kLayersMax = 100'000;
constexpr int kDepthMax = 100;

std::optional<std::size_t> number_in(const std::string& name) {
  std::size_t number = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (failure != std::errc{} || end != name.data() + name.size() || std::to_string(number) != name) return std::nullopt;
  return number;
}

// The arrays of a layer's group. Where one is missing, another layer has it.
std::vector<proto::Blob> read_arrays(const Object& group, const std::vector<std::string>& names) {
  std::vector<proto::Blob> arrays;
  for (const std::string& name : names) {
    const std::optional<std::size_t> number = number_in(name);
    if (!number || *number >= kArraysMax) {
      throw ConfigError(concat(group.place(), ": has a dataset \"", name,
                               "\"; those of a layer are called by their numbers, 0, 1, ..."));
    }
    while (arrays.size() <= *number) arrays.push_back(proto::with_another_layer());
    arrays[*number] = group.at(name).read_blob();
  }
  return arrays;
}

// Of the group of a layer called `name`. A group in it is another layer, whose name goes on behind a slash; one that
// has nothing but such groups in it is no layer itself.
void read_layer(const Object& group, const std::string& name, int depth, std::size_t& seen, proto::TrainedNet& into) {
  if (depth > kDepthMax || ++seen > kLayersMax) {
    throw ConfigError(concat(group.place(), ": groups lead into each other without an end; it is damaged"));
  }
  std::vector<std::string> arrays;
  std::vector<std::string> groups;
  for (const std::string& inner : group.names()) (group.is_group(inner) ? groups : arrays).push_back(inner);
  if (!arrays.empty() || groups.empty()) {
    into.layers.push_back({.name = name, .type = "", .blobs = read_arrays(group, arrays)});
  }
  for (const std::string& inner : groups) read_layer(group.at(inner), name + "/" + inner, depth + 1, seen, into);
}

void read_layers(const Object& data, proto::TrainedNet& into) {
  std::size_t seen = 0;
  for (const std::string& name : data.names()) {
    if (!data.is_group(name)) {
      throw ConfigError(concat(data.place(), ": has a dataset \"", name, "\" where there are groups, one for a layer"));
    }
    read_layer(data.at(name), name, 0, seen, into);
  }
}

// Of a group with arrays called 0, 1, ...
std::vector<proto::Blob> read_numbered(const Object& group) {
  const std::size_t count = group.names().size();
  if (count > kArraysMax) throw ConfigError(concat(group.place(), ": has ", count, " arrays; it is damaged"));
  std::vector<proto::Blob> blobs;
  for (std::size_t i = 0; i < count; ++i) blobs.push_back(group.at(std::to_string(i)).read_blob());
  return blobs;
}

void put_numbered(const std::vector<proto::Blob>& blobs, const Object& group) {
  for (std::size_t i = 0; i < blobs.size(); ++i) group.put_blob(std::to_string(i), blobs[i]);
}

std::vector<proto::CarriedBlobs> read_carried(const Object& group) {
  const std::size_t count = group.names().size();
  if (count > kLayersMax) throw ConfigError(concat(group.place(), ": has ", count, " layers; it is damaged"));
  std::vector<proto::CarriedBlobs> carried;
  for (std::size_t i = 0; i < count; ++i) {
    const Object layer = group.at(std::to_string(i));
    carried.push_back({.layer = layer.text(kLayer), .blobs = read_numbered(layer.at(kBlobs))});
  }
  return carried;
}

void put_carried(const std::vector<proto::CarriedBlobs>& carried, const Object& group) {
  for (std::size_t i = 0; i < carried.size(); ++i) {
    const Object layer = group.make_group(std::to_string(i));
    layer.put_text(kLayer, carried[i].layer);
    put_numbered(carried[i].blobs, layer.make_group(kBlobs));
  }
}

proto::ResumeState read_resume(const Object& group) {
  if (const std::int64_t format = group.integer(kFormat); format != kFormatNumber) {
    throw ConfigError(concat(group.place(), ": is a snapshot of format ", format, "; this program reads format ",
                             kFormatNumber, ", so resume with the version of Poseidon that wrote it"));
  }
  proto::ResumeState resume{.model_sha256 = group.text(kSha256),
                            .data_positions = {},
                            .random_seed = group.integer(kSeed),
                            .dtype = group.text(kDtype),
                            .solver_type = group.text(kSolverType),
                            .workers = static_cast<std::uint32_t>(group.integer(kWorkers))};
  const Object positions = group.at(kPositions);
  const std::size_t count = positions.names().size();
  for (std::size_t i = 0; i < count; ++i) {
    const Object position = positions.at(std::to_string(i));
    resume.data_positions.push_back(
        {.layer = position.text(kLayer), .next_record = static_cast<std::uint64_t>(position.integer(kNextRecord))});
  }
  // Files of earlier versions have neither.
  if (group.has(kUpdate)) resume.update = group.text(kUpdate);
  if (group.has(kCarried)) resume.carried = read_carried(group.at(kCarried));
  return resume;
}

void put_resume(const proto::ResumeState& resume, const Object& group) {
  group.put_integer(kFormat, kFormatNumber);
  group.put_text(kSha256, resume.model_sha256);
  const Object positions = group.make_group(kPositions);
  for (std::size_t i = 0; i < resume.data_positions.size(); ++i) {
    const Object position = positions.make_group(std::to_string(i));
    position.put_text(kLayer, resume.data_positions[i].layer);
    position.put_integer64(kNextRecord, resume.data_positions[i].next_record);
  }
  group.put_integer64(kSeed, static_cast<std::uint64_t>(resume.random_seed));
  group.put_text(kDtype, resume.dtype);
  group.put_text(kSolverType, resume.solver_type);
  group.put_integer(kWorkers, resume.workers);
  group.put_text(kUpdate, resume.update);
  if (!resume.carried.empty()) put_carried(resume.carried, group.make_group(kCarried));
}

void require_layer_name(const std::string& name) {
  // The library reads them as steps of a path.
  const bool usable = !name.empty() && name.front() != '/' && name.back() != '/' && name.find("//") == name.npos &&
                      ("/" + name + "/").find("/./") == std::string::npos;
  if (!usable) throw ConfigError(concat("a layer called \"", name, "\" cannot be written into an HDF5 file"));
}

}  // namespace

proto::TrainedNet parse_hdf5_model(std::string_view bytes, const std::string& file_name) {
  const Object file = Object::open_bytes(bytes, file_name);
  if (!file.has(kData) || !file.is_group(kData)) {
    throw ConfigError(
        concat(file_name, ": has no group \"", kData, "\"; a trained model (.caffemodel.h5) was expected"));
  }
  proto::TrainedNet net;
  read_layers(file.at(kData), net);
  if (net.layers.empty()) {
    throw ConfigError(concat(file_name, ": holds no layer; a trained model (.caffemodel.h5) was expected"));
  }
  return net;
}

std::string hdf5_model_bytes(const proto::TrainedNet& net) {
  const Object file = Object::create();
  const Object data = file.make_group(kData);
  const bool with_diffs = std::any_of(net.layers.begin(), net.layers.end(),
                                      [](const proto::TrainedLayer& layer) { return !layer.diffs.empty(); });
  const Object diff = with_diffs ? file.make_group(kDiff) : file;
  std::set<std::string> written;  // names of arrays that are shared
  for (const proto::TrainedLayer& layer : net.layers) {
    require_layer_name(layer.name);
    const Object group = data.make_group(layer.name);
    for (std::size_t i = 0; i < layer.blobs.size(); ++i) {
      const std::string& shared = i < layer.share_names.size() ? layer.share_names[i] : "";
      const bool is_here = shared.empty() || written.insert(shared).second;
      if (is_here && !proto::is_with_another_layer(layer.blobs[i])) group.put_blob(std::to_string(i), layer.blobs[i]);
    }
    if (!with_diffs) continue;
    const Object beside = diff.make_group(layer.name);
    for (std::size_t i = 0; i < layer.diffs.size(); ++i) beside.put_blob(std::to_string(i), layer.diffs[i]);
  }
  return file.bytes();
}

proto::SolverState parse_hdf5_state(std::string_view bytes, const std::string& file_name) {
  const Object file = Object::open_bytes(bytes, file_name);
  if (!file.has(kIteration)) {
    throw ConfigError(concat(file_name, ": holds no iteration; a snapshot of a solver (.solverstate.h5) was expected"));
  }
  proto::SolverState state{.iteration = file.integer(kIteration),
                           .model_file = file.has(kModel) ? file.text(kModel) : "",
                           .current_step = file.integer(kStep),
                           .history = {},
                           .resume = {}};
  if (state.iteration < 0)
    throw ConfigError(concat(file_name, ": says iteration ", state.iteration, "; it is damaged"));
  state.history = read_numbered(file.at(kHistory));
  if (file.has(kResume)) state.resume = read_resume(file.at(kResume));
  return state;
}

std::string hdf5_state_bytes(const proto::SolverState& state) {
  if (state.iteration > std::numeric_limits<std::int32_t>::max()) {
    throw ConfigError(concat("iteration ", state.iteration, " is beyond what Caffe's snapshots can say"));
  }
  const Object file = Object::create();
  file.put_integer(kIteration, state.iteration);
  file.put_text(kModel, state.model_file);
  file.put_integer(kStep, state.current_step);
  put_numbered(state.history, file.make_group(kHistory));
  if (state.resume) put_resume(*state.resume, file.make_group(kResume));
  return file.bytes();
}

}  // namespace poseidon::caffe
