#include "engines/caffe/net/trained_net.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <stdexcept>

#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

// Files that Caffe wrote before blobs had any number of axes have four, the first ones 1.
bool fits(const Shape& file, const Shape& net) {
  if (file == net) return true;
  if (file.size() != 4 || net.size() > 4) return false;
  Shape padded(4 - net.size(), 1);
  padded.insert(padded.end(), net.begin(), net.end());
  return file == padded;
}

// Does a file hold the layer's array elsewhere, with the layer that owns it?
bool may_be_absent(const Net& net, std::size_t step, std::size_t parameter) {
  const std::vector<std::size_t>& arrays = net.arrays_of(step);
  return parameter < arrays.size() && net.arrays()[arrays[parameter]].owner != step;
}

bool is_absent(const proto::TrainedLayer& trained, std::size_t parameter) {
  return parameter >= trained.blobs.size() || proto::is_with_another_layer(trained.blobs[parameter]);
}

void check(const proto::TrainedLayer& trained, const std::string& file_name, const Net& net, std::size_t step,
           std::string_view remedy) {
  const Layer& layer = *net.steps()[step].layer;
  const std::vector<Parameter>& own = layer.parameters();
  bool right_number = trained.blobs.size() <= own.size();
  for (std::size_t i = 0; i < own.size(); ++i) {
    right_number = right_number && (!is_absent(trained, i) || may_be_absent(net, step, i));
  }
  if (!right_number) {
    throw ConfigError(base::concat(file_name, ": layer \"", trained.name, "\" has ", trained.blobs.size(),
                                   " arrays, and the net's layer of this name (", layer.message().position().text(),
                                   ") has ", own.size(), remedy));
  }
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (is_absent(trained, i) || fits(trained.blobs[i].shape, own[i].shape)) continue;
    throw ConfigError(base::concat(file_name, ": layer \"", trained.name, "\" has array ", i, " as ",
                                   base::readable_shape(trained.blobs[i].shape), ", and the net's layer of this name (",
                                   layer.message().position().text(), ") has it as ",
                                   base::readable_shape(own[i].shape), remedy));
  }
}

template <typename Scalar>
std::vector<Scalar> numbers_of(const at::Tensor& tensor) {
  const Scalar* const data = tensor.const_data_ptr<Scalar>();
  return {data, data + tensor.numel()};
}

}  // namespace

proto::Blob to_blob(const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().contiguous();
  proto::Blob blob{.shape = values.sizes().vec(), .values = {}};
  if (values.scalar_type() == at::kDouble) {
    blob.values = numbers_of<double>(values);
  } else {
    blob.values = numbers_of<float>(values);
  }
  return blob;
}

void restore(const proto::Blob& blob, const at::Tensor& into) {
  const c10::NoGradGuard no_graph;
  if (static_cast<std::int64_t>(blob.count()) != into.numel()) {
    throw std::logic_error(base::concat("an array of ", blob.count(), " numbers cannot become one of ", into.numel()));
  }
  std::visit(
      [&](const auto& numbers) {
        using Scalar = typename std::decay_t<decltype(numbers)>::value_type;
        // Read only, in spite of from_blob's wish for a pointer that can write.
        auto* const data = const_cast<Scalar*>(numbers.data());  // NOLINT
        into.copy_(at::from_blob(data, into.sizes(), c10::CppTypeToScalarType<Scalar>::value));
      },
      blob.values);
}

proto::TrainedNet trained_net(const Net& net, std::span<const at::Tensor> diffs) {
  proto::TrainedNet trained{.name = net.name(), .layers = {}};
  for (std::size_t s = 0; s < net.steps().size(); ++s) {
    const Step& step = net.steps()[s];
    if (step.layer->parameters().empty()) continue;
    proto::TrainedLayer layer{.name = step.layer->name(), .type = step.layer->type(), .blobs = {}};
    for (const Parameter& parameter : step.layer->parameters()) {
      layer.blobs.push_back(to_blob(parameter.value));
      layer.blobs.back().shape = parameter.shape;
      layer.share_names.push_back(parameter.share_name);
    }
    for (const std::size_t array : net.arrays_of(s)) {
      if (diffs.empty()) break;
      layer.diffs.push_back(to_blob(diffs[array].defined() ? diffs[array] : at::zeros_like(net.arrays()[array].value)));
    }
    trained.layers.push_back(std::move(layer));
  }
  return trained;
}

void check_trained(const proto::TrainedNet& trained, const std::string& file_name, const Net& net,
                   std::string_view remedy) {
  for (const proto::TrainedLayer& layer : trained.layers) {
    const Step* const step = net.find_layer(layer.name);
    if (step != nullptr) check(layer, file_name, net, static_cast<std::size_t>(step - net.steps().data()), remedy);
  }
}

void copy_trained(const proto::TrainedNet& trained, const std::string& file_name, Net& net) {
  check_trained(trained, file_name, net, "; rename the layer to leave it untouched");
  const auto has_arrays = [](const Step* step) { return step != nullptr && !step->layer->parameters().empty(); };
  std::vector<std::string> unknown;
  for (const proto::TrainedLayer& layer : trained.layers) {
    if (net.find_layer(layer.name) == nullptr && !layer.blobs.empty()) unknown.push_back(layer.name);
  }
  if (!unknown.empty()) {
    base::log::info(base::concat(file_name, ": not in this net, and passed over: ", base::join_words(unknown)));
  }
  for (const proto::TrainedLayer& layer : trained.layers) {
    const Step* const step = net.find_layer(layer.name);
    if (!has_arrays(step)) continue;
    for (std::size_t i = 0; i < layer.blobs.size(); ++i) {
      if (!is_absent(layer, i)) restore(layer.blobs[i], step->layer->parameters()[i].value);
    }
  }
  std::vector<std::string> untouched;
  for (const Step& step : net.steps()) {
    const bool found = std::any_of(trained.layers.begin(), trained.layers.end(),
                                   [&](const proto::TrainedLayer& layer) { return layer.name == step.layer->name(); });
    if (has_arrays(&step) && !found) untouched.push_back(step.layer->name());
  }
  if (!untouched.empty()) {
    base::log::info(base::concat(file_name, ": has nothing for ", base::join_words(untouched),
                                 ", which keep their initial values"));
  }
}

}  // namespace poseidon::caffe
