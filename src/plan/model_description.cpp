#include "plan/model_description.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"

namespace poseidon::plan {
namespace {

using nlohmann::json;

// Far beyond any net, and far from where products of extents overflow.
constexpr std::size_t kLayersMax = 1'000'000;
constexpr std::size_t kParametersMax = 64;
constexpr std::size_t kExtentsMax = 8;
constexpr double kElementsMax = 1e12;
constexpr double kRowsMax = 1e9;

Error invalid(const std::string& layer, const std::string& why) {
  return Error{ErrorCode::kInvalid, layer.empty() ? base::concat("no model description: ", why)
                                                  : base::concat("no model description: layer \"", layer, "\": ", why)};
}

// A count that is not negative and not beyond all measure.
Result<double> count(const json& layer, const std::string& name, const char* field) {
  const auto found = layer.find(field);
  if (found == layer.end() || !found->is_number()) return invalid(name, base::concat("it lacks a number \"", field, "\""));
  const double value = found->get<double>();
  if (!(value >= 0 && value <= 1e18)) return invalid(name, base::concat("\"", field, "\" is ", value));
  return value;
}

Result<std::vector<std::int64_t>> shape_of(const json& extents, const std::string& name) {
  if (!extents.is_array() || extents.empty() || extents.size() > kExtentsMax) {
    return invalid(name, base::concat("a shape in \"params\" must be a list of 1 to ", kExtentsMax, " extents"));
  }
  std::vector<std::int64_t> shape;
  double elements = 1;
  for (const json& extent : extents) {
    const std::int64_t value = extent.is_number_integer() ? extent.get<std::int64_t>() : 0;
    elements *= static_cast<double>(value);
    if (value < 1 || elements > kElementsMax) return invalid(name, base::concat("an extent in \"params\" is ", extent.dump()));
    shape.push_back(value);
  }
  return shape;
}

Result<DescribedLayer> layer_of(const json& entry) {
  if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string()) return invalid("", "a layer lacks its name");
  DescribedLayer layer;
  layer.name = entry["name"].get<std::string>();
  for (const auto& [field, into] : {std::pair("forward_flops_per_sample", &layer.forward_flops),
                                    std::pair("backward_flops_per_sample", &layer.backward_flops)}) {
    Result<double> value = count(entry, layer.name, field);
    if (!value) return value.error();
    *into = *value;
  }
  const json parameters = entry.value("params", json::array());
  if (!parameters.is_array() || parameters.size() > kParametersMax) return invalid(layer.name, "\"params\" must be a list of shapes");
  for (const json& extents : parameters) {
    Result<std::vector<std::int64_t>> shape = shape_of(extents, layer.name);
    if (!shape) return shape.error();
    layer.parameters.push_back(std::move(*shape));
  }
  const json factors = entry.value("fc", json());
  const json tied = entry.value("tied_to", json());
  layer.has_factors = !factors.is_null() && tied.is_null();
  if (!layer.has_factors) return layer;
  Result<double> rows = count(entry, layer.name, "rows_per_sample");
  if (!rows) return rows.error();
  if (*rows > kRowsMax) return invalid(layer.name, base::concat("\"rows_per_sample\" is ", *rows));
  layer.rows_per_sample = static_cast<std::int64_t>(std::max(1.0, *rows));
  const bool is_matrix = !layer.parameters.empty() && layer.parameters[0].size() == 2;
  if (!is_matrix || layer.parameters.size() > 2 ||
      (layer.parameters.size() == 2 && layer.parameters[1] != std::vector<std::int64_t>{layer.parameters[0][0]})) {
    return invalid(layer.name, "a layer with \"fc\" has the parameters [m, n] and, perhaps, [m]");
  }
  return layer;
}

}  // namespace

double ModelDescription::flops() const {
  double sum = 0;
  for (const DescribedLayer& layer : layers) sum += layer.forward_flops + layer.backward_flops;
  return sum;
}

std::uint64_t ModelDescription::parameters() const {
  std::uint64_t sum = 0;
  for (const DescribedLayer& layer : layers) {
    for (const std::vector<std::int64_t>& shape : layer.parameters) {
      std::uint64_t product = 1;
      for (const std::int64_t extent : shape) product *= static_cast<std::uint64_t>(extent);
      sum += product;
    }
  }
  return sum;
}

Result<ModelDescription> parse_model_description(std::string_view text) {
  try {
    const json document = json::parse(text);
    if (!document.is_object() || !document.contains("layers") || !document["layers"].is_array()) {
      return invalid("", "it has no list \"layers\"");
    }
    ModelDescription description;
    description.name = document.value("name", "");
    if (document["layers"].size() > kLayersMax) return invalid("", "it has too many layers");
    std::set<std::string> names;
    for (const json& entry : document["layers"]) {
      Result<DescribedLayer> layer = layer_of(entry);
      if (!layer) return layer.error();
      if (!names.insert(layer->name).second) return invalid(layer->name, "there are two of this name");
      description.layers.push_back(std::move(*layer));
    }
    if (description.parameters() == 0) return invalid("", "it has nothing to train");
    if (!(description.flops() > 0)) return invalid("", "it computes nothing");
    return description;
  } catch (const json::exception& e) {
    return invalid("", e.what());
  }
}

DescribedModel model_of(const ModelDescription& description, std::int64_t batch) {
  DescribedModel described;
  for (std::size_t l = 0; l < description.layers.size(); ++l) {
    const DescribedLayer& layer = description.layers[l];
    if (layer.parameters.empty()) continue;
    LayerSpec spec;
    spec.name = layer.name;
    spec.factor_rows = layer.has_factors ? static_cast<std::size_t>(batch * layer.rows_per_sample) : 0;
    for (std::size_t p = 0; p < layer.parameters.size(); ++p) {
      spec.tensors.push_back(TensorId{static_cast<std::uint32_t>(described.model.tensors.size())});
      described.model.tensors.push_back({base::concat(layer.name, ".", p), layer.parameters[p], DType::kFloat32});
    }
    described.model.layers.push_back(std::move(spec));
    described.layer_of.push_back(l);
  }
  return described;
}

}  // namespace poseidon::plan
