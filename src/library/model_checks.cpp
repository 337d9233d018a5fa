#include "library/model_checks.h"

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "base/text.h"

namespace poseidon::library {
namespace {

// The same bounds as those on what comes over a link (cluster/messages.cpp), so that what passes here is not refused there.
constexpr std::size_t kDimensionsMax = 16;
constexpr std::size_t kElementsMax = std::size_t{1} << 50;
constexpr std::size_t kFactorRowsMax = std::size_t{1} << 40;

Error invalid(std::string text) { return Error{ErrorCode::kInvalid, std::move(text)}; }

Status check_tensor(const TensorSpec& tensor) {
  if (tensor.name.empty()) return invalid("a tensor of the model has no name");
  if (tensor.dtype != DType::kFloat32 && tensor.dtype != DType::kFloat64) {
    return invalid(
        base::concat(tensor.name, " is ", to_string(tensor.dtype), "; only float32 and float64 can be synchronised now"));
  }
  if (tensor.shape.size() > kDimensionsMax) {
    return invalid(
        base::concat(tensor.name, " has ", tensor.shape.size(), " dimensions, at most ", kDimensionsMax, " are possible"));
  }
  std::size_t elements = 1;
  for (const std::int64_t extent : tensor.shape) {
    if (extent < 1 || elements > kElementsMax / static_cast<std::size_t>(extent)) {
      return invalid(base::concat(tensor.name, " cannot have the shape ", base::readable_shape(tensor.shape)));
    }
    elements *= static_cast<std::size_t>(extent);
  }
  return {};
}

Status check_factor_layer(const Model& model, const LayerSpec& layer) {
  const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
  if (layer.factor_rows > kFactorRowsMax) {
    return invalid(base::concat("layer ", layer.name, " cannot have ", layer.factor_rows, " rows of factors"));
  }
  if (weight.shape.size() != 2) {
    return invalid(base::concat("layer ", layer.name, " offers factors, but its first tensor, ", weight.name, " ",
                                base::readable_shape(weight.shape), ", is no matrix"));
  }
  if (layer.tensors.size() > 2) {
    return invalid(base::concat("layer ", layer.name, " offers factors, but has more than a weight and a bias"));
  }
  if (layer.tensors.size() == 2) {
    const TensorSpec& bias = model.tensors[index(layer.tensors[1])];
    if (bias.elements() != static_cast<std::size_t>(weight.shape[0]) || bias.dtype != weight.dtype) {
      return invalid(base::concat("layer ", layer.name, " offers factors, so ", bias.name, " must have ", weight.shape[0],
                                  " numbers of ", to_string(weight.dtype), ", one for each row of ", weight.name));
    }
  }
  return {};
}

std::string described(const TensorSpec& tensor) {
  return base::concat(tensor.name, " ", base::readable_shape(tensor.shape), " ", to_string(tensor.dtype));
}

Status check_values(const Model& model, std::span<const TensorView> values, bool may_lack) {
  if (values.size() != model.tensors.size()) {
    return invalid(base::concat("there are values for ", values.size(), " tensors, the model has ", model.tensors.size()));
  }
  for (std::size_t t = 0; t < values.size(); ++t) {
    if (may_lack && values[t].data == nullptr) continue;
    const TensorSpec& tensor = model.tensors[t];
    if (const Status status = check_view("the value of " + tensor.name, values[t], tensor.elements(), tensor.dtype); !status) {
      return status;
    }
  }
  return {};
}

}  // namespace

Status check_model(const Model& model) {
  if (model.tensors.empty()) return invalid("the model has no tensors");
  std::set<std::string> names;
  for (const TensorSpec& tensor : model.tensors) {
    if (const Status status = check_tensor(tensor); !status) return status;
    if (!names.insert(tensor.name).second) return invalid(base::concat("two tensors of the model are called ", tensor.name));
  }
  names.clear();
  std::vector<const LayerSpec*> layer_of(model.tensors.size(), nullptr);
  for (const LayerSpec& layer : model.layers) {
    if (layer.name.empty()) return invalid("a layer of the model has no name");
    if (!names.insert(layer.name).second) return invalid(base::concat("two layers of the model are called ", layer.name));
    if (layer.tensors.empty()) return invalid(base::concat("layer ", layer.name, " has no tensors"));
    for (const TensorId id : layer.tensors) {
      if (index(id) >= model.tensors.size()) {
        return invalid(base::concat("layer ", layer.name, " names tensor ", index(id), ", of ", model.tensors.size()));
      }
      if (layer_of[index(id)] != nullptr) {
        return invalid(base::concat(model.tensors[index(id)].name, " is in layer ", layer_of[index(id)]->name, " and in layer ",
                                    layer.name));
      }
      layer_of[index(id)] = &layer;
    }
    if (layer.factor_rows == 0) continue;
    if (const Status status = check_factor_layer(model, layer); !status) return status;
  }
  for (std::size_t t = 0; t < layer_of.size(); ++t) {
    if (layer_of[t] == nullptr) return invalid(base::concat(model.tensors[t].name, " is in no layer"));
  }
  return {};
}

Status check_view(const std::string& what, const TensorView& view, std::size_t elements, DType dtype) {
  const std::size_t bytes = elements * bytes_of(dtype);
  if (view.dtype != dtype) {
    return invalid(base::concat(what, " is ", to_string(view.dtype), ", ", to_string(dtype), " is wanted"));
  }
  if (view.bytes != bytes) return invalid(base::concat(what, " has ", view.bytes, " bytes, ", bytes, " are wanted"));
  if (view.device.kind != Device::Kind::kHost) return invalid(base::concat(what, " is not in host memory"));
  if (bytes == 0) return {};
  if (view.data == nullptr) return invalid(base::concat(what, " has no memory"));
  if (reinterpret_cast<std::uintptr_t>(view.data) % bytes_of(dtype) != 0) {
    return invalid(base::concat(what, " is not aligned to ", bytes_of(dtype), " bytes"));
  }
  return {};
}

Status check_values(const Model& model, std::span<const TensorView> values) { return check_values(model, values, false); }

Status check_renewal(const Model& present, const Model& next, std::span<const TensorView> values) {
  for (std::size_t t = 0; t < present.tensors.size(); ++t) {
    const TensorSpec& old = present.tensors[t];
    if (t >= next.tensors.size()) {
      return invalid(base::concat("the next model has ", next.tensors.size(), " tensors, so that it lacks ", described(old),
                                  ": the tensors of the present one stay, and others follow behind them"));
    }
    const TensorSpec& tensor = next.tensors[t];
    if (tensor.name == old.name && tensor.shape == old.shape && tensor.dtype == old.dtype) continue;
    return invalid(base::concat("tensor ", t, " of the next model is ", described(tensor), ", and of the present one ", described(old),
                                ": the tensors of the present one stay as they are, and others follow behind them"));
  }
  return check_values(next, values, true);
}

Status check_dense(const Model& model, TensorId tensor, const DenseGradient& gradient) {
  const TensorSpec& spec = model.tensors[index(tensor)];
  if (gradient.ready.handle != nullptr) {
    return invalid(base::concat("the gradient of ", spec.name, " waits for a device, and there is none"));
  }
  if (gradient.contributors != 1) {
    return invalid(base::concat("the gradient of ", spec.name, " is said to be of ", gradient.contributors,
                                " workers; each worker submits its own, so it must be 1"));
  }
  return check_view("the gradient of " + spec.name, gradient.gradient, spec.elements(), spec.dtype);
}

Status check_factors(const Model& model, LayerId id, const FactorGradient& gradient) {
  const LayerSpec& layer = model.layers[index(id)];
  const TensorSpec& weight = model.tensors[index(layer.tensors[0])];
  const std::size_t outputs = static_cast<std::size_t>(weight.shape[0]);
  const std::size_t inputs = static_cast<std::size_t>(weight.shape[1]);
  if (gradient.rows > layer.factor_rows) {
    return invalid(
        base::concat("layer ", layer.name, ": ", gradient.rows, " rows of factors, ", layer.factor_rows, " were announced"));
  }
  if (gradient.ready.handle != nullptr) {
    return invalid(base::concat("layer ", layer.name, ": its factors wait for a device, and there is none"));
  }
  const bool has_bias = layer.tensors.size() > 1;
  for (const Status& status :
       {check_view("U of layer " + layer.name, gradient.outputs, gradient.rows * outputs, weight.dtype),
        check_view("V of layer " + layer.name, gradient.inputs, gradient.rows * inputs, weight.dtype),
        check_view("the sum of " + weight.name, gradient.weight, outputs * inputs, weight.dtype),
        has_bias ? check_view("the sum of " + model.tensors[index(layer.tensors[1])].name, gradient.bias, outputs, weight.dtype)
                 : Status()}) {
    if (!status) return status;
  }
  return {};
}

}  // namespace poseidon::library
