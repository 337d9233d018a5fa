#include "engines/caffe/proto/upgrade.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/move_field.h"
#include "engines/caffe/proto/upgrade_v0.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;
using ::caffe::LayerParameter;
using ::caffe::NetParameter;
using ::caffe::V1LayerParameter;

struct TypeName {
  V1LayerParameter::LayerType v1;
  const char* present;
};

constexpr std::array kTypes = {
    TypeName{V1LayerParameter::ABSVAL, "AbsVal"},
    TypeName{V1LayerParameter::ACCURACY, "Accuracy"},
    TypeName{V1LayerParameter::ARGMAX, "ArgMax"},
    TypeName{V1LayerParameter::BNLL, "BNLL"},
    TypeName{V1LayerParameter::CONCAT, "Concat"},
    TypeName{V1LayerParameter::CONTRASTIVE_LOSS, "ContrastiveLoss"},
    TypeName{V1LayerParameter::CONVOLUTION, "Convolution"},
    TypeName{V1LayerParameter::DATA, "Data"},
    TypeName{V1LayerParameter::DECONVOLUTION, "Deconvolution"},
    TypeName{V1LayerParameter::DROPOUT, "Dropout"},
    TypeName{V1LayerParameter::DUMMY_DATA, "DummyData"},
    TypeName{V1LayerParameter::ELTWISE, "Eltwise"},
    TypeName{V1LayerParameter::EUCLIDEAN_LOSS, "EuclideanLoss"},
    TypeName{V1LayerParameter::EXP, "Exp"},
    TypeName{V1LayerParameter::FLATTEN, "Flatten"},
    TypeName{V1LayerParameter::HDF5_DATA, "HDF5Data"},
    TypeName{V1LayerParameter::HDF5_OUTPUT, "HDF5Output"},
    TypeName{V1LayerParameter::HINGE_LOSS, "HingeLoss"},
    TypeName{V1LayerParameter::IM2COL, "Im2col"},
    TypeName{V1LayerParameter::IMAGE_DATA, "ImageData"},
    TypeName{V1LayerParameter::INFOGAIN_LOSS, "InfogainLoss"},
    TypeName{V1LayerParameter::INNER_PRODUCT, "InnerProduct"},
    TypeName{V1LayerParameter::LRN, "LRN"},
    TypeName{V1LayerParameter::MEMORY_DATA, "MemoryData"},
    TypeName{V1LayerParameter::MULTINOMIAL_LOGISTIC_LOSS, "MultinomialLogisticLoss"},
    TypeName{V1LayerParameter::MVN, "MVN"},
    TypeName{V1LayerParameter::NONE, ""},
    TypeName{V1LayerParameter::POOLING, "Pooling"},
    TypeName{V1LayerParameter::POWER, "Power"},
    TypeName{V1LayerParameter::RELU, "ReLU"},
    TypeName{V1LayerParameter::SIGMOID, "Sigmoid"},
    TypeName{V1LayerParameter::SIGMOID_CROSS_ENTROPY_LOSS, "SigmoidCrossEntropyLoss"},
    TypeName{V1LayerParameter::SILENCE, "Silence"},
    TypeName{V1LayerParameter::SLICE, "Slice"},
    TypeName{V1LayerParameter::SOFTMAX, "Softmax"},
    TypeName{V1LayerParameter::SOFTMAX_LOSS, "SoftmaxWithLoss"},
    TypeName{V1LayerParameter::SPLIT, "Split"},
    TypeName{V1LayerParameter::TANH, "TanH"},
    TypeName{V1LayerParameter::THRESHOLD, "Threshold"},
    TypeName{V1LayerParameter::WINDOW_DATA, "WindowData"},
};

const char* type_of(V1LayerParameter::LayerType type) {
  return std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& name) { return name.v1 == type; })->present;
}
static_assert(kTypes.size() == V1LayerParameter::LayerType_ARRAYSIZE, "each type has its present name, once");

// The settings of data layers that transform_param has taken over. Present-form layers may have them as well, where
// Caffe does not look at them.
bool move_transformation(V1LayerParameter& layer, Places& places) {
  google::protobuf::Message* settings = nullptr;
  if (layer.type() == V1LayerParameter::DATA && layer.has_data_param()) settings = layer.mutable_data_param();
  if (layer.type() == V1LayerParameter::IMAGE_DATA && layer.has_image_data_param()) {
    settings = layer.mutable_image_data_param();
  }
  if (layer.type() == V1LayerParameter::WINDOW_DATA && layer.has_window_data_param()) {
    settings = layer.mutable_window_data_param();
  }
  if (settings == nullptr) return false;
  bool moved = false;
  for (const char* const name : {"scale", "mean_file", "crop_size", "mirror"}) {
    const Places::Field* const field = field_of(*settings, name);
    if (!settings->GetReflection()->HasField(*settings, field)) continue;
    ::caffe::TransformationParameter& transform = *layer.mutable_transform_param();
    move_field({*settings, field}, {transform, field_of(transform, name)}, places);
    moved = true;
  }
  return moved;
}

// The n-th value of a V1 layer's field goes to the n-th ParamSpec.
void spread_over_params(V1LayerParameter& from, const Places::Field* field, const char* name, LayerParameter& to,
                        Places& places) {
  const Places::Field* const params = field_of(to, "param");
  for (int i = 0; i < from.GetReflection()->FieldSize(from, field); ++i) {
    if (to.param_size() <= i) {
      to.add_param();
      places.copy({from, field, i}, {to, params, i});
    }
    ::caffe::ParamSpec& spec = *to.mutable_param(i);
    copy_value({from, field}, i, {spec, field_of(spec, name)}, -1, places);
  }
}

void upgrade_v1_layer(V1LayerParameter& from, LayerParameter& to, Places& places) {
  std::vector<const Places::Field*> set;
  from.GetReflection()->ListFields(from, &set);
  for (const Places::Field* const field : set) {
    const std::string& name = field->name();
    if (name == "type") {
      to.set_type(type_of(from.type()));
      places.copy({from, field}, {to, field_of(to, "type")});
    } else if (name == "param") {
      spread_over_params(from, field, "name", to, places);
    } else if (name == "blob_share_mode") {
      spread_over_params(from, field, "share_mode", to, places);
    } else if (name == "blobs_lr") {
      spread_over_params(from, field, "lr_mult", to, places);
    } else if (name == "weight_decay") {
      spread_over_params(from, field, "decay_mult", to, places);
    } else {
      move_field({from, field}, {to, field_of(to, name.c_str())}, places);
    }
  }
}

void refuse_two_forms(const NetParameter& net, const Places& places, const std::string& file) {
  if (net.layer_size() == 0) return;
  throw ConfigError(
      concat(places.text(file, {net, field_of(net, "layers"), 0}),
             ": the net has `layers`, the old form, and `layer`, the present one; write all in one form"));
}

void upgrade_v1_layers(NetParameter& net, Places& places) {
  for (int i = 0; i < net.layers_size(); ++i) {
    upgrade_v1_layer(*net.mutable_layers(i), *net.add_layer(), places);
    places.copy({net, field_of(net, "layers"), i}, {net, field_of(net, "layer"), i});
  }
  net.clear_layers();
}

void check_inputs(const NetParameter& net, const Places& places, const std::string& file) {
  const int inputs = net.input_size();
  const bool shapes = net.input_shape_size() == inputs && net.input_dim_size() == 0;
  const bool extents = net.input_dim_size() == 4 * inputs && net.input_shape_size() == 0;
  if (shapes || extents) return;
  throw ConfigError(concat(places.text(file, {net, field_of(net, "input"), 0}),
                           ": each input needs one input_shape, or four input_dim: there are ", inputs, " inputs, ",
                           net.input_shape_size(), " input_shape and ", net.input_dim_size(), " input_dim"));
}

// The older form as the layer that it stands for, in front of all others.
void upgrade_inputs(NetParameter& net, Places& places, const std::string& file) {
  check_inputs(net, places, file);
  const Places::Field* const layers = field_of(net, "layer");
  LayerParameter* const input = net.add_layer();
  for (int i = net.layer_size() - 1; i > 0; --i) {
    net.mutable_layer()->SwapElements(i, i - 1);
    places.copy({net, layers, i - 1}, {net, layers, i});
  }
  places.copy({net, field_of(net, "input"), 0}, {net, layers, 0});
  input->set_name("input");
  input->set_type("Input");
  move_field({net, field_of(net, "input")}, {*input, field_of(*input, "top")}, places);
  ::caffe::InputParameter& settings = *input->mutable_input_param();
  for (int i = 0; i < net.input_dim_size(); ++i) {
    ::caffe::BlobShape& shape = i % 4 == 0 ? *settings.add_shape() : *settings.mutable_shape(i / 4);
    if (i % 4 == 0) places.copy({net, field_of(net, "input_dim"), i}, {settings, field_of(settings, "shape"), i / 4});
    copy_value({net, field_of(net, "input_dim")}, i, {shape, field_of(shape, "dim")}, i % 4, places);
  }
  net.clear_input_dim();
  move_field({net, field_of(net, "input_shape")}, {settings, field_of(settings, "shape")}, places);
}

// BatchNorm once had three arrays with a `param` each, to keep the solver from training them; it does so by itself now.
bool upgrade_batch_norm(LayerParameter& layer) {
  if (layer.type() != "BatchNorm" || layer.param_size() != 3) return false;
  bool changed = false;
  for (::caffe::ParamSpec& param : *layer.mutable_param()) {
    changed = changed || param.lr_mult() != 0 || param.decay_mult() != 0;
    param.set_lr_mult(0);
    param.set_decay_mult(0);
  }
  return changed;
}

const char* type_of(::caffe::SolverParameter::SolverType type) {
  switch (type) {
    case ::caffe::SolverParameter::SGD:
      return "SGD";
    case ::caffe::SolverParameter::NESTEROV:
      return "Nesterov";
    case ::caffe::SolverParameter::ADAGRAD:
      return "AdaGrad";
    case ::caffe::SolverParameter::RMSPROP:
      return "RMSProp";
    case ::caffe::SolverParameter::ADADELTA:
      return "AdaDelta";
    case ::caffe::SolverParameter::ADAM:
      return "Adam";
  }
  return "";
}

void append(std::vector<std::string>& to, const std::vector<std::string>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace

std::vector<std::string> upgrade_layers(NetParameter& net, Places& places, const std::string& file) {
  if (net.layers_size() == 0) return {};
  refuse_two_forms(net, places, file);
  std::vector<std::string> old;
  const bool oldest = has_v0_layers(net);
  if (oldest) upgrade_v0_layers(net, places, file);
  old.emplace_back(oldest ? "layers of the form `layers { layer { type: \"conv\" } }`"
                          : "layers of the form `layers { type: CONVOLUTION }`");
  bool transformation = false;
  for (V1LayerParameter& layer : *net.mutable_layers()) {
    transformation = move_transformation(layer, places) || transformation;
  }
  if (transformation) old.emplace_back("settings of data layers that belong into transform_param");
  upgrade_v1_layers(net, places);
  return old;
}

std::vector<std::string> upgrade_net(NetParameter& net, Places& places, const std::string& file) {
  std::vector<std::string> old = upgrade_layers(net, places, file);
  if (net.input_size() > 0) {
    upgrade_inputs(net, places, file);
    old.emplace_back("inputs without an Input layer");
  }
  net.clear_input_shape();
  net.clear_input_dim();
  bool batch_norm = false;
  for (LayerParameter& layer : *net.mutable_layer()) batch_norm = upgrade_batch_norm(layer) || batch_norm;
  if (batch_norm) old.emplace_back("BatchNorm layers whose arrays a solver would train");
  return old;
}

std::vector<std::string> upgrade_solver(::caffe::SolverParameter& solver, Places& places, const std::string& file) {
  std::vector<std::string> old;
  const Places::Field* const solver_type = field_of(solver, "solver_type");
  if (solver.has_solver_type()) {
    if (solver.has_type()) {
      throw ConfigError(concat(places.text(file, {solver, solver_type}),
                               ": solver_type is the older form of type; give one of them"));
    }
    solver.set_type(type_of(solver.solver_type()));
    places.copy({solver, solver_type}, {solver, field_of(solver, "type")});
    solver.clear_solver_type();
    old.emplace_back("solver_type");
  }
  if (solver.has_net_param()) append(old, upgrade_net(*solver.mutable_net_param(), places, file));
  if (solver.has_train_net_param()) append(old, upgrade_net(*solver.mutable_train_net_param(), places, file));
  for (NetParameter& net : *solver.mutable_test_net_param()) append(old, upgrade_net(net, places, file));
  return old;
}

}  // namespace poseidon::caffe::proto
