// The types of layer that Poseidon brings. Their files have no headers: this list is the only door to them.
#pragma once

#include "engines/caffe/layers/registry.h"

namespace poseidon::caffe {

LayerRegistry standard_layers();

std::unique_ptr<Layer> make_accuracy(const LayerConfig& config);
std::unique_ptr<Layer> make_batch_norm(const LayerConfig& config);
std::unique_ptr<Layer> make_contrastive_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_convolution(const LayerConfig& config);
std::unique_ptr<Layer> make_data(const LayerConfig& config);
std::unique_ptr<Layer> make_deconvolution(const LayerConfig& config);
std::unique_ptr<Layer> make_dropout(const LayerConfig& config);
std::unique_ptr<Layer> make_euclidean_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_hinge_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_im2col(const LayerConfig& config);
std::unique_ptr<Layer> make_infogain_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_inner_product(const LayerConfig& config);
std::unique_ptr<Layer> make_input(const LayerConfig& config);
std::unique_ptr<Layer> make_lrn(const LayerConfig& config);
std::unique_ptr<Layer> make_lstm(const LayerConfig& config);
std::unique_ptr<Layer> make_lstm_unit(const LayerConfig& config);
std::unique_ptr<Layer> make_multinomial_logistic_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_mvn(const LayerConfig& config);
std::unique_ptr<Layer> make_pooling(const LayerConfig& config);
std::unique_ptr<Layer> make_relu(const LayerConfig& config);
std::unique_ptr<Layer> make_rnn(const LayerConfig& config);
std::unique_ptr<Layer> make_sigmoid_cross_entropy_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_softmax(const LayerConfig& config);
std::unique_ptr<Layer> make_softmax_with_loss(const LayerConfig& config);

}  // namespace poseidon::caffe
