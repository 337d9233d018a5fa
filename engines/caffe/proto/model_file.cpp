#include "engines/caffe/proto/model_file.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/upgrade.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;

void put_share_names(const std::vector<std::string>& names, ::caffe::LayerParameter& into) {
  if (std::all_of(names.begin(), names.end(), [](const std::string& name) { return name.empty(); })) return;
  for (const std::string& name : names) into.add_param()->set_name(name);
}

}  // namespace

TrainedNet parse_model(std::string_view bytes, std::string_view file_name, Diffs diffs) {
  const std::string file(file_name);
  ::caffe::NetParameter net;
  parse_binary(bytes, file, "a trained model (.caffemodel)", net);
  Places nowhere;
  upgrade_layers(net, nowhere, file);
  if (net.layer_size() == 0) {
    throw ConfigError(concat(file, ": holds no layer; a trained model (.caffemodel) was expected"));
  }
  TrainedNet trained;
  trained.name = net.name();
  trained.layers.reserve(static_cast<std::size_t>(net.layer_size()));
  for (::caffe::LayerParameter& layer : *net.mutable_layer()) {
    TrainedLayer& into = trained.layers.emplace_back();
    into.name = layer.name();
    into.type = layer.type();
    for (const ::caffe::ParamSpec& param : layer.param()) into.share_names.push_back(param.name());
    for (int i = 0; i < layer.blobs_size(); ++i) {
      const std::string where = concat(file, ": array ", i, " of layer \"", into.name, "\"");
      ::caffe::BlobProto& blob = *layer.mutable_blobs(i);
      if (diffs == Diffs::kRead && has_diff(blob)) into.diffs.push_back(take_diff(blob, where));
      into.blobs.push_back(take_blob(blob, where));
    }
  }
  return trained;
}

TrainedNet read_model(const std::filesystem::path& file) {
  return parse_model(read_binary(file), file.string());
}

Result<std::string> model_bytes(const TrainedNet& net) {
  ::caffe::NetParameter message;
  message.set_name(net.name);
  for (const TrainedLayer& layer : net.layers) {
    ::caffe::LayerParameter* into = message.add_layer();
    into->set_name(layer.name);
    into->set_type(layer.type);
    put_share_names(layer.share_names, *into);
    for (const Blob& blob : layer.blobs) put_blob(blob, *into->add_blobs());
    for (std::size_t i = 0; i < layer.diffs.size(); ++i)
      put_diff(layer.diffs[i], *into->mutable_blobs(static_cast<int>(i)));
  }
  return to_binary(message, concat("the model of net \"", net.name, "\""));
}

Status write_model(const std::filesystem::path& file, const TrainedNet& net) {
  const Result<std::string> bytes = model_bytes(net);
  if (!bytes) return Error{bytes.error().code, concat("cannot write ", file.string(), ": ", bytes.error().message)};
  return base::write_file_atomically(file, std::string_view(*bytes));
}

}  // namespace poseidon::caffe::proto
