#include "engines/caffe/layers/registry.h"

#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {

void LayerRegistry::add(std::string type, LayerFactory factory) {
  factories_.insert_or_assign(std::move(type), std::move(factory));
}

std::unique_ptr<Layer> LayerRegistry::create(const LayerConfig& config) const {
  const auto entry = factories_.find(config.type);
  if (entry == factories_.end()) {
    throw ConfigError(base::concat(config.message.position("type").text(), ": layer \"", config.name,
                                   "\" is of type \"", config.type, "\", which there is not",
                                   base::did_you_mean(config.type, types())));
  }
  return entry->second(config);
}

std::vector<std::string> LayerRegistry::types() const {
  std::vector<std::string> names;
  for (const auto& [name, factory] : factories_) names.push_back(name);
  return names;
}

}  // namespace poseidon::caffe
