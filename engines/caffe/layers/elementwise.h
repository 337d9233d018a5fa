// A layer that makes one top of its one bottom's shape, each element from one element.
#pragma once

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

class Elementwise : public Layer {
 public:
  explicit Elementwise(const LayerConfig& config) : Layer(config, {}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const final { return bottoms; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) final {
    return {apply(bottoms[0], context.overwrite_bottom)};
  }

 private:
  // `in_place`: the result may lie in x's memory.
  virtual at::Tensor apply(at::Tensor x, bool in_place) const = 0;
};

}  // namespace poseidon::caffe
