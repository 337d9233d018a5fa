#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {

LayerRegistry standard_layers() {
  LayerRegistry registry;
  registry.add("Accuracy", make_accuracy);
  registry.add("Convolution", make_convolution);
  registry.add("Data", make_data);
  registry.add("Dropout", make_dropout);
  registry.add("ImageData", make_image_data);
  registry.add("InnerProduct", make_inner_product);
  registry.add("Input", make_input);
  registry.add("MemoryData", make_memory_data);
  registry.add("Pooling", make_pooling);
  registry.add("ReLU", make_relu);
  registry.add("Softmax", make_softmax);
  registry.add("SoftmaxWithLoss", make_softmax_with_loss);
  return registry;
}

}  // namespace poseidon::caffe
