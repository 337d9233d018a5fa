#include "engines/caffe/layers/layer.h"

#include <functional>
#include <numeric>
#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {
namespace {

// "1 bottom", "at least 2 tops", "2 to 3 bottoms".
std::string wanted(std::size_t least, std::size_t most, std::string_view noun) {
  const std::size_t last = most == BlobCounts::kAny ? least : most;
  const std::string nouns = base::concat(noun, last == 1 ? "" : "s");
  if (most == BlobCounts::kAny) return base::concat("at least ", least, " ", nouns);
  if (least == most) return base::concat(least, " ", nouns);
  return base::concat(least, " to ", most, " ", nouns);
}

}  // namespace

std::string_view to_string(Phase phase) {
  return phase == Phase::kTrain ? "TRAIN" : "TEST";
}

bool ForwardContext::has_other_workers() const {
  return workers != nullptr && workers->workers() > 1;
}

std::int64_t elements_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

LayerConfig layer_config(const proto::Message& layer, Phase phase, std::uint64_t seed, at::ScalarType dtype) {
  if (layer.has("phase")) phase = layer.choice("phase") == "TRAIN" ? Phase::kTrain : Phase::kTest;
  return {.message = layer,
          .name = layer.text("name"),
          .type = layer.text("type"),
          .bottoms = layer.texts("bottom"),
          .tops = layer.texts("top"),
          .phase = phase,
          .seed = seed,
          .dtype = dtype};
}

Layer::Layer(LayerConfig config, const BlobCounts& counts) : config_(std::move(config)) {
  if (bottoms().size() < counts.bottoms_min || bottoms().size() > counts.bottoms_max) {
    fail(base::concat("wants ", wanted(counts.bottoms_min, counts.bottoms_max, "bottom"), " and has ",
                      bottoms().size()));
  }
  const std::size_t tops_min = counts.one_top_per_bottom ? bottoms().size() : counts.tops_min;
  const std::size_t tops_max = counts.one_top_per_bottom ? bottoms().size() : counts.tops_max;
  while (counts.automatic_tops && config_.tops.size() < tops_min) {
    config_.tops.push_back(base::concat("(automatic top ", config_.tops.size(), " of ", name(), ")"));
  }
  if (tops().size() < tops_min || tops().size() > tops_max) {
    fail(base::concat("wants ", wanted(tops_min, tops_max, "top"), " and has ", tops().size()));
  }
}

std::vector<Shape> Layer::setup(const std::vector<Shape>& bottoms) {
  std::vector<Shape> tops = top_shapes(bottoms);
  declare_parameters(bottoms);
  if (const std::size_t entries = message().count("param"); entries > parameters_.size()) {
    fail_at(message().position("param", parameters_.size()),
            base::concat("has ", entries, " param entries for ", parameters_.size(), " arrays"));
  }
  return tops;
}

void Layer::add_parameter(std::string_view suffix, Shape shape, const Filler& filler) {
  Parameter parameter{.name = base::concat(name(), ".", suffix),
                      .shape = std::move(shape),
                      .filler = filler,
                      .lr_mult = {},
                      .decay_mult = {},
                      .share_name = {},
                      .position = message().position(),
                      .value = {}};
  if (const std::size_t nth = parameters_.size(); nth < message().count("param")) {
    const proto::Message spec = message().messages("param")[nth];
    if (spec.has("lr_mult")) parameter.lr_mult = spec.real("lr_mult");
    if (spec.has("decay_mult")) parameter.decay_mult = spec.real("decay_mult");
    parameter.share_name = spec.text("name");
    parameter.share_any_shape = spec.choice("share_mode") == "PERMISSIVE";
    parameter.position = spec.position();
  }
  parameters_.push_back(std::move(parameter));
}

void Layer::fill(Parameter& parameter) const {
  try {
    parameter.value = parameter.initial.defined() ? parameter.initial.to(dtype(), false, /*copy=*/true)
                                                  : filled(parameter.filler, parameter.shape, dtype(),
                                                           base::RandomStream(seed(), parameter.name));
  } catch (const ConfigError& error) {
    fail(error.what());
  }
  parameter.value.set_requires_grad(parameter.lr_mult.value_or(1) != 0);
}

at::Tensor Layer::array(std::size_t parameter) const {
  const Parameter& own = parameters_[parameter];
  return own.value.sizes() == own.shape ? own.value : own.value.view(own.shape);
}

bool Layer::feed(std::size_t, const at::Tensor&) {
  return false;
}

void Layer::fail(std::string_view text) const {
  fail_at(message().position(), text);
}

void Layer::fail_at(const proto::Position& position, std::string_view text) const {
  throw ConfigError(base::concat(position.text(), ": layer \"", name(), "\" (", type(), ") ", text));
}

std::size_t Layer::canonical_axis(std::int64_t axis, const Shape& shape) const {
  const auto axes = static_cast<std::int64_t>(shape.size());
  if (axis < -axes || axis >= axes) {
    fail(base::concat("has axis ", axis, ", but its ", describe_bottom(0, shape), ", which has axes ", -axes, " to ",
                      axes - 1));
  }
  return static_cast<std::size_t>(axis < 0 ? axis + axes : axis);
}

std::string Layer::describe_bottom(std::size_t bottom, const Shape& shape) const {
  return base::concat("bottom \"", bottoms()[bottom], "\" is ", base::readable_shape(shape));
}

}  // namespace poseidon::caffe
