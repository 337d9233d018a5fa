#include "engines/caffe/net/description.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "engines/caffe/layers/window.h"
#include "engines/caffe/net/net.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

// Stands in for a Data layer: the shapes of its batches, and no records.
class ShapesOnly final : public Layer {
 public:
  ShapesOnly(const LayerConfig& config, const Shape& record)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 0, .tops_max = 2}),
        records_(message().message("data_param").integer("batch_size")), record_(record) {
    if (records_ < 1) fail("needs batch_size, at least 1");
  }
  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override {
    Shape images = {records_};
    images.insert(images.end(), record_.begin(), record_.end());
    std::vector<Shape> shapes = {images, {records_}};
    shapes.resize(tops().size());
    return shapes;
  }
  std::size_t records_per_batch() const override { return static_cast<std::size_t>(records_); }
  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>&) override {
    std::vector<at::Tensor> values;
    for (const Shape& shape : top_shapes({})) values.push_back(at::zeros(shape, at::TensorOptions(dtype())));
    return values;
  }

 private:
  std::int64_t records_;
  Shape record_;
};

// [channels, height, width] of a Data layer's images as far as its prototxt says; empty where it does not.
Shape stated_record(const proto::Message& layer) {
  const proto::Message transform = layer.message("transform_param");
  const std::int64_t crop = transform.integer("crop_size");
  if (crop == 0) return {};
  if (transform.flag("force_gray")) return {1, crop, crop};
  if (transform.flag("force_color")) return {3, crop, crop};
  // One mean value may stand for all channels; several are one each.
  const auto means = static_cast<std::int64_t>(transform.count("mean_value"));
  return means > 1 ? Shape{means, crop, crop} : Shape{};
}

LayerRegistry without_records(const LayerRegistry& registry, const Shape& record) {
  LayerRegistry changed = registry;
  changed.add("Data", [registry, record](const LayerConfig& config) -> std::unique_ptr<Layer> {
    const Shape shape = record.empty() ? stated_record(config.message) : record;
    if (!shape.empty()) return std::make_unique<ShapesOnly>(config, shape);
    const std::string source = config.message.message("data_param").text("source");
    if (std::filesystem::exists(source)) return registry.create(config);
    throw ConfigError(base::concat(config.message.position().text(), ": layer \"", config.name,
                                   "\" does not say how large its records are, and its data base ", source,
                                   " does not exist; give --record CHANNELS,HEIGHT,WIDTH, or a net with an Input layer"));
  });
  return changed;
}

double elements(const Shape& shape) { return static_cast<double>(elements_of(shape)); }

class Describer {
 public:
  explicit Describer(const Net& net) : net_(net), needs_gradient_(net.blobs().size(), false) {}

  plan::ModelDescription describe() {
    plan::ModelDescription description;
    description.name = net_.name();
    const auto records = static_cast<double>(net_.records_per_batch());
    for (std::size_t i = 0; i < net_.steps().size(); ++i) {
      plan::DescribedLayer layer = describe(i);
      layer.forward_flops /= records;
      layer.backward_flops /= records;
      description.layers.push_back(std::move(layer));
    }
    return description;
  }

 private:
  struct Flops {
    double forward = 0;
    double backward = 0;
  };

  const Shape& shape(std::size_t blob) const { return net_.blobs()[blob].shape; }
  double elements_of_all(const std::vector<std::size_t>& blobs) const {
    double sum = 0;
    for (const std::size_t blob : blobs) sum += elements(shape(blob));
    return sum;
  }
  // A layer uses the array, wherever it is owned, and somebody trains it.
  bool is_trained(const Step& step, std::size_t parameter) const {
    return step.layer->parameters()[parameter].value.requires_grad();
  }

  plan::DescribedLayer describe(std::size_t index) {
    const Step& step = net_.steps()[index];
    plan::DescribedLayer layer;
    layer.name = step.layer->name();
    bool input_needs = false;
    for (std::size_t i = 0; i < step.bottoms.size(); ++i) {
      input_needs = input_needs || (needs_gradient_[step.bottoms[i]] && !step.stops_gradient[i]);
    }
    bool passes_on = input_needs;
    for (std::size_t p = 0; p < step.layer->parameters().size(); ++p) passes_on = passes_on || is_trained(step, p);
    for (const std::size_t top : step.tops) needs_gradient_[top] = passes_on;
    const Flops flops = step.layer->parameters().empty() ? of_plain(step) : of_weighted(step, input_needs);
    layer.forward_flops = flops.forward;
    layer.backward_flops = passes_on ? flops.backward : 0;
    add_trained(step, layer);
    return layer;
  }

  void add_trained(const Step& step, plan::DescribedLayer& layer) const {
    const auto& all = net_.parameters();
    const auto owned = std::find_if(all.begin(), all.end(), [&](const auto& p) { return p.name == layer.name; });
    if (owned == all.end()) return;
    for (const at::Tensor& value : owned->parameters) {
      // A description knows no array without axes, which a single number is.
      layer.parameters.push_back(value.dim() == 0 ? Shape{1} : value.sizes().vec());
    }
    layer.has_factors = step.takes_factors;
    if (!step.takes_factors) return;
    const std::size_t records = net_.records_per_batch();
    layer.rows_per_sample = static_cast<std::int64_t>((owned->factor_rows + records - 1) / records);
  }

  Flops of_weighted(const Step& step, bool input_needs) const {
    const std::string& type = step.layer->type();
    if (type == "RNN" || type == "LSTM") return of_recurrent(step, input_needs);
    if (type != "Convolution" && type != "Deconvolution" && type != "InnerProduct") return of_plain(step);
    const double outputs = elements_of_all(step.tops);
    const double products = 2 * products_with_weight(step);
    const bool has_bias = step.layer->parameters().size() > 1;
    Flops flops;
    flops.forward = products + (has_bias ? outputs : 0);
    if (is_trained(step, 0)) flops.backward += products;
    if (input_needs) flops.backward += products;
    if (has_bias && is_trained(step, 1)) flops.backward += outputs;
    return flops;
  }

  static bool only_moves(const std::string& type) {
    static const std::set<std::string> types = {"BatchReindex", "Concat",  "Crop",  "Filter", "Flatten", "Parameter",
                                                "Reshape",      "Silence", "Slice", "Split",  "Tile"};
    return types.contains(type);
  }

  // Every element of a top is a product of as many numbers as its row of the weight has, Convolution and InnerProduct
  // alike. Deconvolution is a convolution from its top to its bottom.
  double products_with_weight(const Step& step) const {
    const Shape& weight = step.layer->parameters()[0].shape;
    const bool is_transposed = step.layer->message().message("inner_product_param").flag("transpose");
    const double rows = static_cast<double>(is_transposed ? weight[1] : weight[0]);
    return elements_of_all(step.layer->type() == "Deconvolution" ? step.bottoms : step.tops) * elements(weight) / rows;
  }

  // Each step of each stream, of which the second bottom has a mark each, meets every weight once. Backward each
  // weight's gradient is a product again; so is the state's, and, where it is wanted, the bottom's.
  Flops of_recurrent(const Step& step, bool input_needs) const {
    const double steps = elements(shape(step.bottoms[1]));
    Flops flops;
    for (std::size_t p = 0; p < step.layer->parameters().size(); ++p) {
      const Shape& array = step.layer->parameters()[p].shape;
      const double operations = steps * elements(array) * (array.size() > 1 ? 2 : 1);  // a bias is only added
      flops.forward += operations;
      if (is_trained(step, p)) flops.backward += operations;
      if (array.size() > 1 && (p > 0 || input_needs)) flops.backward += operations;
    }
    return flops;
  }

  Flops of_plain(const Step& step) const {
    const double outputs = elements_of_all(step.tops);
    const std::string& type = step.layer->type();
    if (step.bottoms.empty()) return {};  // data
    if (type == "Accuracy" || only_moves(type)) return {};
    if (type == "SoftmaxWithLoss") return {5 * elements(shape(step.bottoms[0])), 2 * elements(shape(step.bottoms[0]))};
    if (type == "Pooling") {
      const proto::Message settings = step.layer->message().message("pooling_param");
      const Shape& bottom = shape(step.bottoms[0]);
      const Window window = read_pooling_window(*step.layer, settings);
      const double size = settings.flag("global_pooling") ? static_cast<double>(bottom[2] * bottom[3])
                                                          : static_cast<double>(window.kernel[0] * window.kernel[1]);
      // A maximum or a draw sends its gradient to one element, a mean to all.
      return {outputs * size, settings.choice("pool") == "AVE" ? outputs * size : outputs};
    }
    const double inputs = elements_of_all(step.bottoms);
    if (type == "ArgMax") return {inputs, 0};
    if (type == "Threshold") return {outputs, 0};
    if (type == "Eltwise" || type == "Reduction") return {inputs, inputs};
    if (type == "SPP") {
      const proto::Message settings = step.layer->message().message("spp_param");
      const double all_levels = inputs * static_cast<double>(settings.integer("pyramid_height"));
      return {all_levels, settings.choice("pool") == "AVE" ? all_levels : outputs};
    }
    if (type == "Scale") {
      const double steps = step.layer->message().message("scale_param").flag("bias_term") ? 2 : 1;
      // Each of the two factors has a gradient.
      return {outputs * steps, outputs * (steps + 1)};
    }
    return {outputs, outputs};
  }

  const Net& net_;
  std::vector<bool> needs_gradient_;  // by blob: what made it has something to train, or what came before
};

}  // namespace

plan::ModelDescription describe(const proto::Message& net, const LayerRegistry& registry, const Shape& record) {
  const Net built(net, without_records(registry, record), {});
  plan::ModelDescription description = Describer(built).describe();
  if (description.parameters() == 0) throw ConfigError(base::concat(net.position().text(), ": the net has nothing to train"));
  if (!(description.flops() > 0)) throw ConfigError(base::concat(net.position().text(), ": the net computes nothing"));
  return description;
}

}  // namespace poseidon::caffe
