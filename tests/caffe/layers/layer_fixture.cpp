#include "caffe/layers/layer_fixture.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <numeric>

#include "engines/caffe/proto/message.h"

namespace poseidon::caffe::testing {
namespace {

// The objective: the sum over all tops of fixed random weights times the elements.
class Objective {
 public:
  Objective(Layer& layer, const ForwardContext& context) : layer_(layer), context_(context) {}

  at::Tensor operator()(const std::vector<at::Tensor>& bottoms) {
    const std::vector<at::Tensor> tops = layer_.forward(context_, bottoms);
    if (weights_.empty()) {
      std::mt19937_64 random(99);
      for (const at::Tensor& top : tops) weights_.push_back(random_tensor(top.sizes().vec(), random));
    }
    at::Tensor sum = at::scalar_tensor(0, at::kDouble);
    for (std::size_t i = 0; i < tops.size(); ++i) sum = sum + (tops[i] * weights_[i]).sum();
    return sum;
  }

 private:
  Layer& layer_;
  ForwardContext context_;
  std::vector<at::Tensor> weights_;
};

std::vector<Shape> shapes_of(const std::vector<at::Tensor>& tensors) {
  std::vector<Shape> shapes;
  for (const at::Tensor& tensor : tensors) shapes.push_back(tensor.sizes().vec());
  return shapes;
}

double at_step(Objective& objective, const std::vector<at::Tensor>& bottoms, double* element, double step) {
  const c10::NoGradGuard no_graph;
  const double before = *element;
  *element = before + step;
  const double value = objective(bottoms).item<double>();
  *element = before;
  return value;
}

}  // namespace

Made make_layer(std::string_view text, const std::vector<Shape>& bottoms, at::ScalarType dtype, Phase phase,
                std::uint64_t seed, const WorkerPlace& worker) {
  LayerConfig config = layer_config(proto::parse_text(text, "LayerParameter", "net.prototxt"), phase, seed, dtype);
  config.worker = worker;
  Made made{.layer = standard_layers().create(config), .tops = {}};
  made.tops = made.layer->setup(bottoms);
  for (Parameter& parameter : made.layer->parameters()) made.layer->fill(parameter);
  return made;
}

std::vector<at::Tensor> tops_of(std::string_view text, const std::vector<at::Tensor>& bottoms, Phase phase,
                                const ForwardContext& context) {
  const Made made = make_layer(text, shapes_of(bottoms), at::kDouble, phase);
  std::vector<at::Tensor> tops = made.layer->forward(context, bottoms);
  EXPECT_EQ(shapes_of(tops), made.tops) << text;
  return tops;
}

at::Tensor random_tensor(const Shape& shape, std::mt19937_64& random) {
  const at::Tensor tensor = at::empty(shape, at::kDouble);
  std::normal_distribution<double> normal;
  std::generate_n(tensor.mutable_data_ptr<double>(), tensor.numel(), [&] { return normal(random); });
  return tensor;
}

at::Tensor distinct_tensor(const Shape& shape, std::mt19937_64& random) {
  const at::Tensor tensor = at::empty(shape, at::kDouble);
  double* const values = tensor.mutable_data_ptr<double>();
  const auto count = static_cast<double>(tensor.numel());
  for (std::int64_t i = 0; i < tensor.numel(); ++i) values[i] = (static_cast<double>(i) - count / 2) / count;
  std::shuffle(values, values + tensor.numel(), random);
  return tensor;
}

at::Tensor tensor_of(const std::vector<double>& values, const Shape& shape) {
  const at::Tensor tensor = at::empty(shape, at::kDouble);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<double>());
  return tensor;
}

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

std::int64_t pick(std::mt19937_64& random, std::int64_t least, std::int64_t most) {
  return std::uniform_int_distribution<std::int64_t>(least, most)(random);
}

void expect_gradients(Layer& layer, std::vector<at::Tensor> bottoms, const std::vector<std::size_t>& differentiable,
                      const ForwardContext& context) {
  std::vector<at::Tensor> variables;
  for (const std::size_t bottom : differentiable) {
    bottoms[bottom].requires_grad_();
    variables.push_back(bottoms[bottom]);
  }
  for (const Parameter& parameter : layer.parameters()) {
    if (parameter.value.requires_grad()) variables.push_back(parameter.value);
  }
  Objective objective(layer, context);
  const std::vector<at::Tensor> gradients = torch::autograd::grad({objective(bottoms)}, variables);
  for (std::size_t v = 0; v < variables.size(); ++v) {
    double* const elements = variables[v].mutable_data_ptr<double>();
    const std::vector<double> gradient = values_of(gradients[v]);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      constexpr double kStep = 1e-5;
      const double difference =
          (at_step(objective, bottoms, elements + i, kStep) - at_step(objective, bottoms, elements + i, -kStep)) /
          (2 * kStep);
      ASSERT_NEAR(gradient[i], difference, 1e-6 * std::max(1.0, std::abs(difference)))
          << "variable " << v << " (bottoms first), element " << i;
    }
  }
}

void expect_gradients_of(std::string_view text, const std::vector<at::Tensor>& bottoms,
                         const std::vector<std::size_t>& differentiable, const ForwardContext& context) {
  SCOPED_TRACE(text);
  std::vector<at::Tensor> copies;
  for (const at::Tensor& bottom : bottoms) copies.push_back(bottom.detach().clone());
  const Made made = make_layer(text, shapes_of(bottoms));
  expect_gradients(*made.layer, copies, differentiable, context);
}

void expect_near(const at::Tensor& actual, const std::vector<double>& wanted, double tolerance) {
  const std::vector<double> values = values_of(actual);
  ASSERT_EQ(values.size(), wanted.size());
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], wanted[i], tolerance) << "element " << i;
}

std::string setup_error(std::string_view text, const std::vector<Shape>& bottoms) {
  return error_of([&] { static_cast<void>(make_layer(text, bottoms)); });
}

}  // namespace poseidon::caffe::testing
