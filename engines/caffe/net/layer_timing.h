// How long each layer of a net takes, forward and backward.
#pragma once

#include <string>
#include <vector>

#include "engines/caffe/net/net.h"

namespace poseidon::caffe {

struct Spread {
  double median_ms = 0;
  double min_ms = 0;
  double max_ms = 0;
};

struct LayerTime {
  std::string name;
  std::string type;
  Spread forward;
  Spread backward;  // zero for layers that have nothing to differentiate
};

struct NetTime {
  std::vector<LayerTime> layers;
  // Whole passes as training makes them, where layers may work in place and free their inputs.
  Spread forward;
  Spread backward;  // zero for a net that cannot be differentiated
};

// Runs `iterations` passes of each kind after one to warm up. To time layers by themselves the graph is cut between
// them, and each is differentiated alone. Makes no optimiser step, and leaves the arrays' gradients empty. `net` is of
// phase TRAIN.
NetTime time_layers(Net& net, int iterations);

}  // namespace poseidon::caffe
