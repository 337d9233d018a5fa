#include "engines/caffe/net/wiring.h"

#include <algorithm>

#include "base/text.h"

namespace poseidon::caffe {

std::vector<std::size_t> Wiring::read(const Layer& layer, std::size_t index) {
  std::vector<std::size_t> bottoms;
  for (std::size_t i = 0; i < layer.bottoms().size(); ++i) {
    const auto entry = latest_.find(layer.bottoms()[i]);
    if (entry == latest_.end()) unknown_bottom(layer, i, index);
    std::vector<std::size_t>& readers = blobs_[entry->second].readers;
    if (readers.empty() || readers.back() != index) readers.push_back(index);
    bottoms.push_back(entry->second);
  }
  return bottoms;
}

std::vector<std::size_t> Wiring::make(const Layer& layer, std::size_t index, const std::vector<Shape>& shapes) {
  std::vector<std::size_t> tops;
  for (std::size_t i = 0; i < layer.tops().size(); ++i) {
    const std::string& name = layer.tops()[i];
    const bool in_place = i < layer.bottoms().size() && layer.bottoms()[i] == name;
    if (const auto entry = latest_.find(name); entry != latest_.end() && !in_place) {
      layer.fail_at(
          layer.message().position("top", i),
          base::concat("makes blob \"", name, "\", which layer \"", layers_[blobs_[entry->second].maker].text("name"),
                       "\" makes already; only a layer that works in place may, with the name in the same place "
                       "among its bottoms"));
    }
    latest_[name] = blobs_.size();
    tops.push_back(blobs_.size());
    blobs_.push_back({.name = name, .shape = shapes[i], .maker = index, .readers = {}});
  }
  return tops;
}

std::size_t Wiring::find(const std::string& name) const {
  const auto entry = latest_.find(name);
  return entry == latest_.end() ? blobs_.size() : entry->second;
}

std::vector<std::size_t> Wiring::outputs() const {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < blobs_.size(); ++i) {
    if (blobs_[i].readers.empty()) found.push_back(i);
  }
  return found;
}

void Wiring::unknown_bottom(const Layer& layer, std::size_t bottom, std::size_t index) const {
  const std::string& name = layer.bottoms()[bottom];
  std::string hint;
  for (std::size_t later = index + 1; later < layers_.size() && hint.empty(); ++later) {
    const std::vector<std::string> tops = layers_[later].texts("top");
    if (std::find(tops.begin(), tops.end(), name) == tops.end()) continue;
    hint = base::concat("; layer \"", layers_[later].text("name"),
                        "\" makes it later, and layers run in the order of the file");
  }
  if (hint.empty()) {
    std::vector<std::string> names;
    for (const auto& [known, number] : latest_) names.push_back(known);
    hint = base::did_you_mean(name, names);
  }
  layer.fail_at(layer.message().position("bottom", bottom),
                base::concat("reads blob \"", name, "\", which no layer before it makes", hint));
}

}  // namespace poseidon::caffe
