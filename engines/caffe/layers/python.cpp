// Python: a class of the user's with setup, reshape, forward and backward, as a function of bottoms and arrays that
// autograd knows.
#include <torch/csrc/autograd/custom_function.h>

#include <filesystem>

#include "base/text.h"
#include "engines/caffe/layers/python_layer.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class PythonLayer final : public Layer {
 public:
  PythonLayer(const LayerConfig& config, PythonClasses& classes)
      : Layer(config,
              {.bottoms_min = 0, .bottoms_max = BlobCounts::kAny, .tops_min = 0, .tops_max = BlobCounts::kAny}) {
    const proto::Message settings = message().message("python_param");
    for (const char* const field : {"module", "layer"}) {
      if (settings.text(field).empty()) {
        fail_at(settings.position(), base::concat("needs ", field, " in its python_param"));
      }
    }
    instance_ = or_fail([&] {
      return classes.make({.module = settings.text("module"),
                           .name = settings.text("layer"),
                           .folder = std::filesystem::path(settings.position().file).parent_path().string(),
                           .param_str = settings.text("param_str"),
                           .layer = name(),
                           .phase = phase(),
                           .dtype = dtype()});
    });
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    std::vector<Shape> shapes = or_fail([&] { return instance_->reshape(bottoms, tops().size()); });
    if (records_ == 0 && bottoms.empty() && !shapes.empty() && !shapes[0].empty()) records_ = shapes[0][0];
    return shapes;
  }

  std::size_t records_per_batch() const override { return static_cast<std::size_t>(records_); }
  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override;

  // The two halves of what autograd calls. `inputs` are the bottoms, then the arrays.
  variable_list call_forward(const PythonPass& pass, const variable_list& inputs) const {
    const auto middle = inputs.begin() + static_cast<std::ptrdiff_t>(bottoms().size());
    return or_fail([&] { return instance_->forward(pass, {inputs.begin(), middle}, {middle, inputs.end()}); });
  }
  variable_list call_backward(const variable_list& gradients, const std::vector<bool>& wanted) const {
    return or_fail([&] { return instance_->backward(gradients, wanted); });
  }

 private:
  void declare_parameters(const std::vector<Shape>&) override {
    const std::vector<at::Tensor> arrays = or_fail([&] { return instance_->arrays(); });
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      add_parameter(base::concat("blob", i), arrays[i].sizes().vec(), Filler{});
      parameters().back().initial = arrays[i];
    }
  }

  template <typename Action>
  auto or_fail(const Action& action) const -> decltype(action()) {
    try {
      return action();
    } catch (const PythonComplaint& complaint) {
      fail(complaint.what());
    }
  }

  std::unique_ptr<PythonInstance> instance_;
  mutable std::int64_t records_ = 0;  // of a class without bottoms, where data enter the net, once it has been set up
};

// The layer outlives the graph, as all layers of a net do.
struct CallPython : torch::autograd::Function<CallPython> {
  static variable_list forward(AutogradContext* context, at::TensorList inputs, const PythonLayer* layer,
                               const PythonPass& pass) {
    context->saved_data["layer"] = reinterpret_cast<std::int64_t>(layer);
    context->saved_data["inputs"] = static_cast<std::int64_t>(inputs.size());
    return layer->call_forward(pass, inputs.vec());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto* const layer = reinterpret_cast<const PythonLayer*>(context->saved_data["layer"].toInt());
    std::vector<bool> wanted;
    for (std::size_t i = 0; i < layer->bottoms().size(); ++i) wanted.push_back(context->needs_input_grad(i));
    variable_list results = layer->call_backward(gradients, wanted);
    constexpr std::size_t kOtherArguments = 2;  // layer and pass have no gradients
    results.resize(static_cast<std::size_t>(context->saved_data["inputs"].toInt()) + kOtherArguments);
    return results;
  }
};

std::vector<at::Tensor> PythonLayer::forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) {
  variable_list inputs = bottoms;
  for (std::size_t i = 0; i < parameters().size(); ++i) inputs.push_back(array(i));
  const PythonPass pass{
      .iteration = context.iteration, .first_record = context.first_record, .records = context.records};
  // Autograd has no use for a function of nothing.
  if (inputs.empty()) return call_forward(pass, inputs);
  return CallPython::apply(at::TensorList(inputs), static_cast<const PythonLayer*>(this), pass);
}

}  // namespace

std::unique_ptr<Layer> make_python_by(PythonClasses& classes, const LayerConfig& config) {
  return std::make_unique<PythonLayer>(config, classes);
}

std::unique_ptr<Layer> make_python(const LayerConfig& config) {
  PythonClasses* classes = nullptr;
  try {
    classes = &loaded_python_classes();
  } catch (const PythonComplaint& complaint) {
    throw ConfigError(base::concat(config.message.position().text(), ": layer \"", config.name,
                                   "\" (Python) cannot run: ", complaint.what()));
  }
  return make_python_by(*classes, config);
}

}  // namespace poseidon::caffe
