// What the tests of layers share: layers from prototxt text, random tensors, and the check of gradients by finite
// differences in double.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::testing {

struct Made {
  std::unique_ptr<Layer> layer;
  std::vector<Shape> tops;
};

// A layer that has been set up and whose arrays are filled. `text` is the inside of a LayerParameter.
Made make_layer(std::string_view text, const std::vector<Shape>& bottoms, at::ScalarType dtype = at::kDouble,
                Phase phase = Phase::kTrain, std::uint64_t seed = 1, const WorkerPlace& worker = {});

// What a layer of that text makes of these bottoms, after it was set up for their shapes.
std::vector<at::Tensor> tops_of(std::string_view text, const std::vector<at::Tensor>& bottoms,
                                Phase phase = Phase::kTrain, const ForwardContext& context = {});

// Values from a standard normal distribution, always the same for a generator's seed.
at::Tensor random_tensor(const Shape& shape, std::mt19937_64& random);
// All different and at least 1/elements apart, in random order: maxima are unique, and a small step does not change
// which.
at::Tensor distinct_tensor(const Shape& shape, std::mt19937_64& random);
at::Tensor tensor_of(const std::vector<double>& values, const Shape& shape);
std::vector<double> values_of(const at::Tensor& tensor);
std::int64_t pick(std::mt19937_64& random, std::int64_t least, std::int64_t most);

// Compares autograd's gradients of a random linear function of the layer's tops, by every element of the bottoms in
// `differentiable` and of the trained arrays, with central differences.
void expect_gradients(Layer& layer, std::vector<at::Tensor> bottoms, const std::vector<std::size_t>& differentiable,
                      const ForwardContext& context = {});

// The same for a layer of that text.
void expect_gradients_of(std::string_view text, const std::vector<at::Tensor>& bottoms,
                         const std::vector<std::size_t>& differentiable, const ForwardContext& context = {});

void expect_near(const at::Tensor& actual, const std::vector<double>& wanted, double tolerance);

// The text of the ConfigError that `action` throws; "(no error)" when it throws none.
template <typename Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "(no error)";
}

// The error when the layer is made and set up.
std::string setup_error(std::string_view text, const std::vector<Shape>& bottoms);

}  // namespace poseidon::caffe::testing
