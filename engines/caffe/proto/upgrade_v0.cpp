#include "engines/caffe/proto/upgrade_v0.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/move_field.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;
using ::caffe::V0LayerParameter;
using ::caffe::V1LayerParameter;

struct TypeName {
  std::string_view v0;
  V1LayerParameter::LayerType v1;
};

// `padding` is not among them: it becomes a setting of the layers that read it.
constexpr std::array kTypes = {
    TypeName{"accuracy", V1LayerParameter::ACCURACY},
    TypeName{"bnll", V1LayerParameter::BNLL},
    TypeName{"concat", V1LayerParameter::CONCAT},
    TypeName{"conv", V1LayerParameter::CONVOLUTION},
    TypeName{"data", V1LayerParameter::DATA},
    TypeName{"dropout", V1LayerParameter::DROPOUT},
    TypeName{"euclidean_loss", V1LayerParameter::EUCLIDEAN_LOSS},
    TypeName{"flatten", V1LayerParameter::FLATTEN},
    TypeName{"hdf5_data", V1LayerParameter::HDF5_DATA},
    TypeName{"hdf5_output", V1LayerParameter::HDF5_OUTPUT},
    TypeName{"im2col", V1LayerParameter::IM2COL},
    TypeName{"images", V1LayerParameter::IMAGE_DATA},
    TypeName{"infogain_loss", V1LayerParameter::INFOGAIN_LOSS},
    TypeName{"innerproduct", V1LayerParameter::INNER_PRODUCT},
    TypeName{"lrn", V1LayerParameter::LRN},
    TypeName{"multinomial_logistic_loss", V1LayerParameter::MULTINOMIAL_LOGISTIC_LOSS},
    TypeName{"pool", V1LayerParameter::POOLING},
    TypeName{"relu", V1LayerParameter::RELU},
    TypeName{"sigmoid", V1LayerParameter::SIGMOID},
    TypeName{"softmax", V1LayerParameter::SOFTMAX},
    TypeName{"softmax_loss", V1LayerParameter::SOFTMAX_LOSS},
    TypeName{"split", V1LayerParameter::SPLIT},
    TypeName{"tanh", V1LayerParameter::TANH},
    TypeName{"window_data", V1LayerParameter::WINDOW_DATA},
};

// Where a setting of the first form went, for one type of layer or (where that is empty) for all.
struct Setting {
  std::string_view v0;
  std::string_view type;
  const char* message;  // of the second form; null: the layer itself
  const char* field;
};

constexpr std::array kSettings = {
    Setting{"alpha", "lrn", "lrn_param", "alpha"},
    Setting{"batchsize", "data", "data_param", "batch_size"},
    Setting{"batchsize", "hdf5_data", "hdf5_data_param", "batch_size"},
    Setting{"batchsize", "images", "image_data_param", "batch_size"},
    Setting{"batchsize", "window_data", "window_data_param", "batch_size"},
    Setting{"beta", "lrn", "lrn_param", "beta"},
    Setting{"bias_filler", "conv", "convolution_param", "bias_filler"},
    Setting{"bias_filler", "innerproduct", "inner_product_param", "bias_filler"},
    Setting{"biasterm", "conv", "convolution_param", "bias_term"},
    Setting{"biasterm", "innerproduct", "inner_product_param", "bias_term"},
    Setting{"blobs", "", nullptr, "blobs"},
    Setting{"blobs_lr", "", nullptr, "blobs_lr"},
    Setting{"concat_dim", "concat", "concat_param", "concat_dim"},
    Setting{"cropsize", "", "transform_param", "crop_size"},
    Setting{"det_bg_threshold", "window_data", "window_data_param", "bg_threshold"},
    Setting{"det_context_pad", "window_data", "window_data_param", "context_pad"},
    Setting{"det_crop_mode", "window_data", "window_data_param", "crop_mode"},
    Setting{"det_fg_fraction", "window_data", "window_data_param", "fg_fraction"},
    Setting{"det_fg_threshold", "window_data", "window_data_param", "fg_threshold"},
    Setting{"dropout_ratio", "dropout", "dropout_param", "dropout_ratio"},
    Setting{"group", "conv", "convolution_param", "group"},
    Setting{"hdf5_output_param", "hdf5_output", nullptr, "hdf5_output_param"},
    Setting{"k", "lrn", "lrn_param", "k"},
    Setting{"kernelsize", "conv", "convolution_param", "kernel_size"},
    Setting{"kernelsize", "pool", "pooling_param", "kernel_size"},
    Setting{"local_size", "lrn", "lrn_param", "local_size"},
    Setting{"meanfile", "", "transform_param", "mean_file"},
    Setting{"mirror", "", "transform_param", "mirror"},
    Setting{"name", "", nullptr, "name"},
    Setting{"new_height", "images", "image_data_param", "new_height"},
    Setting{"new_width", "images", "image_data_param", "new_width"},
    Setting{"num_output", "conv", "convolution_param", "num_output"},
    Setting{"num_output", "innerproduct", "inner_product_param", "num_output"},
    Setting{"pad", "conv", "convolution_param", "pad"},
    Setting{"pad", "pool", "pooling_param", "pad"},
    Setting{"pool", "pool", "pooling_param", "pool"},
    Setting{"rand_skip", "data", "data_param", "rand_skip"},
    Setting{"rand_skip", "images", "image_data_param", "rand_skip"},
    Setting{"scale", "", "transform_param", "scale"},
    Setting{"shuffle_images", "images", "image_data_param", "shuffle"},
    Setting{"source", "data", "data_param", "source"},
    Setting{"source", "hdf5_data", "hdf5_data_param", "source"},
    Setting{"source", "images", "image_data_param", "source"},
    Setting{"source", "infogain_loss", "infogain_loss_param", "source"},
    Setting{"source", "window_data", "window_data_param", "source"},
    Setting{"stride", "conv", "convolution_param", "stride"},
    Setting{"stride", "pool", "pooling_param", "stride"},
    Setting{"weight_decay", "", nullptr, "weight_decay"},
    Setting{"weight_filler", "conv", "convolution_param", "weight_filler"},
    Setting{"weight_filler", "innerproduct", "inner_product_param", "weight_filler"},
};

class V0Upgrade {
 public:
  V0Upgrade(::caffe::NetParameter& net, Places& places, const std::string& file)
      : net_(net), places_(places), file_(file) {}

  void run() {
    fold_padding();
    for (int i = 0; i < net_.layers_size(); ++i) {
      if (net_.layers(i).has_layer()) upgrade(*net_.mutable_layers(i));
    }
  }

 private:
  // The place of a setting of a layer of the first form; of the layer where the setting has none.
  std::string place(const V1LayerParameter& layer, const char* field) const {
    const Places::Value setting{layer.layer(), field_of(layer.layer(), field)};
    if (places_.find(setting)) return places_.text(file_, setting);
    return places_.text(file_, {layer, field_of(layer, "layer")});
  }
  static std::string described(const V1LayerParameter& layer) {
    return concat("layer \"", layer.layer().name(), "\" (", layer.layer().type(), ")");
  }

  // Layers read a padding layer's bottom, with its `pad`, in place of its top.
  void fold_padding() {
    std::map<std::string, int> makers;  // of each blob, the last layer so far
    for (int i = 0; i < net_.layers_size(); ++i) {
      V1LayerParameter& layer = *net_.mutable_layers(i);
      for (int b = 0; b < layer.bottom_size(); ++b) {
        const auto maker = makers.find(layer.bottom(b));
        if (maker == makers.end() || net_.layers(maker->second).layer().type() != "padding") continue;
        pad(layer, b, net_.layers(maker->second));
      }
      for (const std::string& top : layer.top()) makers[top] = i;
    }
    remove_padding_layers();
  }

  void pad(V1LayerParameter& reader, int bottom, const V1LayerParameter& padding) {
    const std::string& type = reader.layer().type();
    if ((type != "conv" && type != "pool") || reader.bottom_size() != 1) {
      throw ConfigError(concat(place(reader, "type"), ": ", described(reader), " reads the padding layer \"",
                               padding.layer().name(), "\", which only a conv or pool layer of one bottom can"));
    }
    if (padding.bottom_size() != 1 || padding.top_size() != 1) {
      throw ConfigError(concat(place(padding, "type"), ": ", described(padding), " has ", padding.bottom_size(),
                               " bottoms and ", padding.top_size(), " tops; padding has one of each"));
    }
    V0LayerParameter& settings = *reader.mutable_layer();
    const Places::Field* const field = field_of(settings, "pad");
    settings.set_pad(padding.layer().pad());
    places_.copy({padding.layer(), field}, {settings, field});
    reader.set_bottom(bottom, padding.bottom(0));
  }

  void remove_padding_layers() {
    const Places::Field* const layers = field_of(net_, "layers");
    int kept = 0;
    for (int i = 0; i < net_.layers_size(); ++i) {
      if (net_.layers(i).layer().type() == "padding") continue;
      places_.copy({net_, layers, i}, {net_, layers, kept});
      net_.mutable_layers()->SwapElements(kept++, i);
    }
    net_.mutable_layers()->DeleteSubrange(kept, net_.layers_size() - kept);
  }

  void upgrade(V1LayerParameter& layer) {
    V0LayerParameter& settings = *layer.mutable_layer();
    set_type(layer);
    std::vector<const Places::Field*> set;
    settings.GetReflection()->ListFields(settings, &set);
    for (const Places::Field* const field : set) {
      if (field->name() != "type") move_setting(layer, field);
    }
    layer.clear_layer();
  }

  void set_type(V1LayerParameter& layer) {
    if (!layer.layer().has_type()) return;
    const std::string& type = layer.layer().type();
    const auto* const found =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& name) { return name.v0 == type; });
    if (found == kTypes.end()) {
      std::vector<std::string> names;
      for (const TypeName& name : kTypes) names.emplace_back(name.v0);
      throw ConfigError(concat(place(layer, "type"), ": there is no type \"", type,
                               "\" among the layers of the oldest form (`layers { layer { ... } }`)",
                               base::did_you_mean(type, names)));
    }
    layer.set_type(found->v1);
    places_.copy({layer.layer(), field_of(layer.layer(), "type")}, {layer, field_of(layer, "type")});
  }

  void move_setting(V1LayerParameter& layer, const Places::Field* field) {
    V0LayerParameter& settings = *layer.mutable_layer();
    const auto* const found = std::find_if(kSettings.begin(), kSettings.end(), [&](const Setting& setting) {
      return setting.v0 == field->name() && (setting.type.empty() || setting.type == settings.type());
    });
    if (found == kSettings.end()) {
      base::log::warning(concat(place(layer, field->name().c_str()), ": ", field->name(), " is no setting of ",
                                described(layer), ": it is left out, as Caffe does"));
      return;
    }
    google::protobuf::Message* into = &layer;
    if (found->message != nullptr) {
      const Places::Field* const inner = field_of(layer, found->message);
      into = layer.GetReflection()->MutableMessage(&layer, inner);
      places_.copy({layer, field_of(layer, "layer")}, {layer, inner});
    }
    move_field({settings, field}, {*into, field_of(*into, found->field)}, places_);
  }

  ::caffe::NetParameter& net_;
  Places& places_;
  const std::string& file_;
};

}  // namespace

bool has_v0_layers(const ::caffe::NetParameter& net) {
  return std::any_of(net.layers().begin(), net.layers().end(), [](const V1LayerParameter& l) { return l.has_layer(); });
}

void upgrade_v0_layers(::caffe::NetParameter& net, Places& places, const std::string& file) {
  V0Upgrade(net, places, file).run();
}

}  // namespace poseidon::caffe::proto
