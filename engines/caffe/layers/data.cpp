// Data: images and labels from a data base.
#include "engines/caffe/layers/record_layer.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Data final : public RecordLayer {
 public:
  explicit Data(const LayerConfig& config) : RecordLayer(config, "data_param") {
    const std::string source = settings().text("source");
    if (source.empty()) {
      fail_at(settings().position("source"), "needs a data base: data_param { source: \"FOLDER\" }");
    }
    if (settings().choice("backend") != "LMDB") {
      fail_at(settings().position("backend"),
              "has backend LEVELDB, which is what it means where none is given, and which is "
              "not supported yet; write backend: LMDB");
    }
    if (settings().has("force_encoded_color")) {
      fail_at(settings().position("force_encoded_color"),
              "has force_encoded_color in data_param; write force_color in transform_param");
    }
    open({.source = source, .color = transform().color(), .takes_jpegs = true, .program = {}});
  }
};

}  // namespace

std::unique_ptr<Layer> make_data(const LayerConfig& config) {
  return std::make_unique<Data>(config);
}

}  // namespace poseidon::caffe
