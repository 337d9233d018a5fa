// Trained models: Caffe's .caffemodel, a NetParameter in protobuf's binary format.
//
// Only what training yields is kept here: for each layer its name, its type and its arrays. How the layers hang
// together is the prototxt's matter; arrays find their layers by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/proto/blob.h"
#include "poseidon/error.h"

namespace poseidon::caffe::proto {

struct TrainedLayer {
  std::string name;
  std::string type;
  std::vector<Blob> blobs;
  // What the last update took from each array, for snapshot_diff: of the same shapes, or none.
  std::vector<Blob> diffs = {};
  // By which name each array is shared with other layers, empty for one that has none; or none at all.
  std::vector<std::string> share_names = {};
};

// HDF5 files hold an array that several layers share once, with the first of them. In the others this stands for it.
inline bool is_with_another_layer(const Blob& blob) {
  return blob.shape == std::vector<std::int64_t>{0};
}
inline Blob with_another_layer() {
  return {.shape = {0}, .values = {}};
}

struct TrainedNet {
  std::string name;
  std::vector<TrainedLayer> layers;
};

// Throw ConfigError for a file that is missing, truncated, damaged or of another kind. Layers of the older forms are
// upgraded; shapes of the old form (num, channels, height, width) come as four axes.
TrainedNet read_model(const std::filesystem::path& file);
enum class Diffs : std::uint8_t { kPassOver, kRead };
TrainedNet parse_model(std::string_view bytes, std::string_view file_name, Diffs diffs = Diffs::kPassOver);

// An error for a model over 2 GiB, which the format cannot hold. The SHA-256 that goes into the solver state is that of
// these bytes.
Result<std::string> model_bytes(const TrainedNet& net);
// Atomically: a full disk leaves an older file of that name as it was.
Status write_model(const std::filesystem::path& file, const TrainedNet& net);

}  // namespace poseidon::caffe::proto
