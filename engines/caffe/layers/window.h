// The window that slides over an image in Pooling.
#pragma once

#include <array>
#include <cstdint>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

// Height and width.
using Extent = std::array<std::int64_t, 2>;

struct Window {
  Extent kernel{1, 1};
  Extent stride{1, 1};
  Extent pad{0, 0};
};

// From a PoolingParameter, where each is a single value or a pair with _h and _w. The kernel is left at 1x1 for
// global_pooling: the image's size is not known yet.
Window read_pooling_window(const Layer& layer, const proto::Message& settings);

}  // namespace poseidon::caffe
