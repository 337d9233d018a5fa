// The types of layer that Poseidon brings. This list is the only door to them.
#pragma once

#include "engines/caffe/layers/registry.h"

namespace poseidon::caffe {

LayerRegistry standard_layers();

std::unique_ptr<Layer> make_abs_val(const LayerConfig& config);
std::unique_ptr<Layer> make_accuracy(const LayerConfig& config);
std::unique_ptr<Layer> make_arg_max(const LayerConfig& config);
std::unique_ptr<Layer> make_batch_norm(const LayerConfig& config);
std::unique_ptr<Layer> make_batch_reindex(const LayerConfig& config);
std::unique_ptr<Layer> make_bias(const LayerConfig& config);
std::unique_ptr<Layer> make_bnll(const LayerConfig& config);
std::unique_ptr<Layer> make_clip(const LayerConfig& config);
std::unique_ptr<Layer> make_concat(const LayerConfig& config);
std::unique_ptr<Layer> make_contrastive_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_convolution(const LayerConfig& config);
std::unique_ptr<Layer> make_crop(const LayerConfig& config);
std::unique_ptr<Layer> make_data(const LayerConfig& config);
std::unique_ptr<Layer> make_deconvolution(const LayerConfig& config);
std::unique_ptr<Layer> make_dropout(const LayerConfig& config);
std::unique_ptr<Layer> make_dummy_data(const LayerConfig& config);
std::unique_ptr<Layer> make_eltwise(const LayerConfig& config);
std::unique_ptr<Layer> make_elu(const LayerConfig& config);
std::unique_ptr<Layer> make_embed(const LayerConfig& config);
std::unique_ptr<Layer> make_euclidean_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_exp(const LayerConfig& config);
std::unique_ptr<Layer> make_filter(const LayerConfig& config);
std::unique_ptr<Layer> make_flatten(const LayerConfig& config);
std::unique_ptr<Layer> make_hdf5_data(const LayerConfig& config);
std::unique_ptr<Layer> make_hdf5_output(const LayerConfig& config);
std::unique_ptr<Layer> make_hinge_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_im2col(const LayerConfig& config);
std::unique_ptr<Layer> make_image_data(const LayerConfig& config);
std::unique_ptr<Layer> make_infogain_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_inner_product(const LayerConfig& config);
std::unique_ptr<Layer> make_input(const LayerConfig& config);
std::unique_ptr<Layer> make_log(const LayerConfig& config);
std::unique_ptr<Layer> make_lrn(const LayerConfig& config);
std::unique_ptr<Layer> make_lstm(const LayerConfig& config);
std::unique_ptr<Layer> make_lstm_unit(const LayerConfig& config);
std::unique_ptr<Layer> make_memory_data(const LayerConfig& config);
std::unique_ptr<Layer> make_multinomial_logistic_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_mvn(const LayerConfig& config);
std::unique_ptr<Layer> make_parameter(const LayerConfig& config);
std::unique_ptr<Layer> make_pooling(const LayerConfig& config);
std::unique_ptr<Layer> make_power(const LayerConfig& config);
std::unique_ptr<Layer> make_prelu(const LayerConfig& config);
std::unique_ptr<Layer> make_python(const LayerConfig& config);
std::unique_ptr<Layer> make_reduction(const LayerConfig& config);
std::unique_ptr<Layer> make_relu(const LayerConfig& config);
std::unique_ptr<Layer> make_reshape(const LayerConfig& config);
std::unique_ptr<Layer> make_rnn(const LayerConfig& config);
std::unique_ptr<Layer> make_scale(const LayerConfig& config);
std::unique_ptr<Layer> make_sigmoid(const LayerConfig& config);
std::unique_ptr<Layer> make_sigmoid_cross_entropy_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_silence(const LayerConfig& config);
std::unique_ptr<Layer> make_slice(const LayerConfig& config);
std::unique_ptr<Layer> make_softmax(const LayerConfig& config);
std::unique_ptr<Layer> make_softmax_with_loss(const LayerConfig& config);
std::unique_ptr<Layer> make_split(const LayerConfig& config);
std::unique_ptr<Layer> make_spp(const LayerConfig& config);
std::unique_ptr<Layer> make_swish(const LayerConfig& config);
std::unique_ptr<Layer> make_tanh(const LayerConfig& config);
std::unique_ptr<Layer> make_threshold(const LayerConfig& config);
std::unique_ptr<Layer> make_tile(const LayerConfig& config);
std::unique_ptr<Layer> make_window_data(const LayerConfig& config);

}  // namespace poseidon::caffe
