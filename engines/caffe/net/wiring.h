// Which layer reads what which other layer has made.
//
// A blob's name may be made anew by a layer that works in place, so what is numbered here is each making of a blob. The
// rules are Caffe's: layers run in the order of the file, a bottom must have been made before, and a name is made once,
// in place apart.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

struct Blob {
  std::string name;
  Shape shape;
  std::size_t maker = 0;             // index of the layer that makes it
  std::vector<std::size_t> readers;  // indices of the layers that read it, ascending
};

class Wiring {
 public:
  // Takes all layers of the net, for the hint that a missing blob is made later.
  explicit Wiring(std::vector<proto::Message> layers) : layers_(std::move(layers)) {}

  // Layers come in order: for each first its bottoms, then its tops. Both return the blobs' numbers, and throw
  // ConfigError with the position of the name.
  std::vector<std::size_t> read(const Layer& layer, std::size_t index);
  std::vector<std::size_t> make(const Layer& layer, std::size_t index, const std::vector<Shape>& shapes);

  const std::vector<proto::Message>& layers() const { return layers_; }
  const std::vector<Blob>& blobs() const { return blobs_; }
  // The last making of a name, or blobs().size() where there is none.
  std::size_t find(const std::string& name) const;
  // Those that nobody reads, in the order of their making: the net's outputs.
  std::vector<std::size_t> outputs() const;

 private:
  [[noreturn]] void unknown_bottom(const Layer& layer, std::size_t bottom, std::size_t index) const;

  std::vector<proto::Message> layers_;
  std::vector<Blob> blobs_;
  std::map<std::string, std::size_t> latest_;  // name to number
};

}  // namespace poseidon::caffe
