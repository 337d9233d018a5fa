// The types of layer that Poseidon brings. Each has a file of its own, which this list is the only door to.
#pragma once

#include "engines/caffe/layers/registry.h"

namespace poseidon::caffe {

LayerRegistry standard_layers();

std::unique_ptr<Layer> make_accuracy(const LayerConfig& config);
std::unique_ptr<Layer> make_convolution(const LayerConfig& config);
std::unique_ptr<Layer> make_data(const LayerConfig& config);
std::unique_ptr<Layer> make_dropout(const LayerConfig& config);
std::unique_ptr<Layer> make_image_data(const LayerConfig& config);
std::unique_ptr<Layer> make_inner_product(const LayerConfig& config);
std::unique_ptr<Layer> make_input(const LayerConfig& config);
std::unique_ptr<Layer> make_memory_data(const LayerConfig& config);
std::unique_ptr<Layer> make_pooling(const LayerConfig& config);
std::unique_ptr<Layer> make_relu(const LayerConfig& config);
std::unique_ptr<Layer> make_softmax(const LayerConfig& config);
std::unique_ptr<Layer> make_softmax_with_loss(const LayerConfig& config);

}  // namespace poseidon::caffe
