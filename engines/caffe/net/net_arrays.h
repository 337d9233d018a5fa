// The trained arrays of a net, each once, whoever uses it.
//
// A layer declares arrays; here they get their values: from the layer's filler, from a layer before it that gives its
// array the same name (`param { name: "shared" }`), or from the layer of the same name in another net (a test net's
// from its train net). What is shared is one tensor, so autograd sums over its uses.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engines/caffe/layers/layer.h"
#include "engines/torch/gradient_exchange.h"

namespace poseidon::caffe {

struct NetArray {
  std::string name;  // "conv1.weight"
  at::Tensor value;
  Shape shape;
  std::optional<double> lr_mult;  // 1 where no layer that uses it states one
  std::optional<double> decay_mult;
  std::size_t owner = 0;           // index of the first layer that uses it
  std::size_t parameter = 0;       // its index among that layer's arrays
  std::vector<std::size_t> users;  // indices of all layers that use it, the owner first
  bool is_statistic = false;       // as Parameter has it
  bool borrowed = false;           // from another net, which trains it

  bool trained() const { return !borrowed && lr_mult.value_or(1) != 0; }
};

class NetArrays {
 public:
  // Gives every array of the layer its value. `twin` is the layer to borrow from, or null. Throws ConfigError with both
  // shapes and both layers' names where sharing does not fit.
  void bind(Layer& layer, std::size_t index, const Layer* twin);
  // When all layers are bound: fixes what is trained.
  void finish();

  // In the order of the layers that own them.
  const std::vector<NetArray>& all() const { return arrays_; }
  // The numbers of the arrays that a layer uses, in its own order.
  const std::vector<std::size_t>& of_layer(std::size_t index) const { return by_layer_[index]; }

 private:
  std::size_t share(Layer& layer, std::size_t index, std::size_t parameter, std::size_t array);
  std::size_t create(Layer& layer, std::size_t index, std::size_t parameter, const Layer* twin);

  std::vector<NetArray> arrays_;
  std::vector<const Layer*> owners_;                // per array, for errors
  std::vector<std::vector<std::size_t>> by_layer_;  // per layer
  std::map<std::string, std::size_t> shared_;       // share_name to array
};

}  // namespace poseidon::caffe
