#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {

LayerRegistry standard_layers() {
  LayerRegistry registry;
  registry.add("AbsVal", make_abs_val);
  registry.add("Accuracy", make_accuracy);
  registry.add("ArgMax", make_arg_max);
  registry.add("BatchNorm", make_batch_norm);
  registry.add("BatchReindex", make_batch_reindex);
  registry.add("Bias", make_bias);
  registry.add("BNLL", make_bnll);
  registry.add("Clip", make_clip);
  registry.add("Concat", make_concat);
  registry.add("ContrastiveLoss", make_contrastive_loss);
  registry.add("Convolution", make_convolution);
  registry.add("Crop", make_crop);
  registry.add("Data", make_data);
  registry.add("Deconvolution", make_deconvolution);
  registry.add("Dropout", make_dropout);
  registry.add("DummyData", make_dummy_data);
  registry.add("Eltwise", make_eltwise);
  registry.add("ELU", make_elu);
  registry.add("Embed", make_embed);
  registry.add("EuclideanLoss", make_euclidean_loss);
  registry.add("Exp", make_exp);
  registry.add("Filter", make_filter);
  registry.add("Flatten", make_flatten);
  registry.add("HDF5Data", make_hdf5_data);
  registry.add("HDF5Output", make_hdf5_output);
  registry.add("HingeLoss", make_hinge_loss);
  registry.add("Im2col", make_im2col);
  registry.add("ImageData", make_image_data);
  registry.add("InfogainLoss", make_infogain_loss);
  registry.add("InnerProduct", make_inner_product);
  registry.add("Input", make_input);
  registry.add("Log", make_log);
  registry.add("LRN", make_lrn);
  registry.add("LSTM", make_lstm);
  registry.add("LSTMUnit", make_lstm_unit);
  registry.add("MemoryData", make_memory_data);
  registry.add("MultinomialLogisticLoss", make_multinomial_logistic_loss);
  registry.add("MVN", make_mvn);
  registry.add("Parameter", make_parameter);
  registry.add("Pooling", make_pooling);
  registry.add("Power", make_power);
  registry.add("PReLU", make_prelu);
  registry.add("Python", make_python);
  registry.add("Reduction", make_reduction);
  registry.add("ReLU", make_relu);
  registry.add("Reshape", make_reshape);
  registry.add("RNN", make_rnn);
  registry.add("Scale", make_scale);
  registry.add("SigmoidCrossEntropyLoss", make_sigmoid_cross_entropy_loss);
  registry.add("Sigmoid", make_sigmoid);
  registry.add("Silence", make_silence);
  registry.add("Slice", make_slice);
  registry.add("Softmax", make_softmax);
  registry.add("SoftmaxWithLoss", make_softmax_with_loss);
  registry.add("Split", make_split);
  registry.add("SPP", make_spp);
  registry.add("Swish", make_swish);
  registry.add("TanH", make_tanh);
  registry.add("Threshold", make_threshold);
  registry.add("Tile", make_tile);
  registry.add("WindowData", make_window_data);
  return registry;
}

}  // namespace poseidon::caffe
