#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {

LayerRegistry standard_layers() {
  LayerRegistry registry;
  registry.add("Accuracy", make_accuracy);
  registry.add("BatchNorm", make_batch_norm);
  registry.add("ContrastiveLoss", make_contrastive_loss);
  registry.add("Convolution", make_convolution);
  registry.add("Data", make_data);
  registry.add("Deconvolution", make_deconvolution);
  registry.add("Dropout", make_dropout);
  registry.add("EuclideanLoss", make_euclidean_loss);
  registry.add("HingeLoss", make_hinge_loss);
  registry.add("Im2col", make_im2col);
  registry.add("InfogainLoss", make_infogain_loss);
  registry.add("InnerProduct", make_inner_product);
  registry.add("Input", make_input);
  registry.add("LRN", make_lrn);
  registry.add("LSTM", make_lstm);
  registry.add("LSTMUnit", make_lstm_unit);
  registry.add("MultinomialLogisticLoss", make_multinomial_logistic_loss);
  registry.add("MVN", make_mvn);
  registry.add("Pooling", make_pooling);
  registry.add("ReLU", make_relu);
  registry.add("RNN", make_rnn);
  registry.add("SigmoidCrossEntropyLoss", make_sigmoid_cross_entropy_loss);
  registry.add("Softmax", make_softmax);
  registry.add("SoftmaxWithLoss", make_softmax_with_loss);
  return registry;
}

}  // namespace poseidon::caffe
