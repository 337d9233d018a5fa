// Which types of layer there are: an ordinary table from the type's name in the prototxt to what makes such a layer.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

using LayerFactory = std::function<std::unique_ptr<Layer>(const LayerConfig&)>;

class LayerRegistry {
 public:
  // A second entry for a type replaces the first.
  void add(std::string type, LayerFactory factory);
  // Throws ConfigError with the layer's position and the near matches for a type that is not in the table, and for
  // settings that the layer refuses.
  std::unique_ptr<Layer> create(const LayerConfig& config) const;
  std::vector<std::string> types() const;

 private:
  std::map<std::string, LayerFactory> factories_;
};

}  // namespace poseidon::caffe
