// A net as a graph in the language DOT, which Graphviz makes pictures of: Caffe's draw_net.py.
#pragma once

#include <optional>
#include <string>

#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {

struct DrawNetOptions {
  std::string direction = "LR";      // LR, RL, TB or BT: where the data flow
  std::optional<std::string> phase;  // "TRAIN" or "TEST": without the layers of the other one only
  bool learning_rates = false;       // write the factors lr_mult of each layer into its box
};

// `net` is a NetParameter. Layers are boxes whose colour says what kind they are, blobs are octagons; a layer that
// computes in place hangs on its blob by an arrow with two heads.
std::string net_as_dot(const proto::Message& net, const DrawNetOptions& options);

}  // namespace poseidon::caffe
