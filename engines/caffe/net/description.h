// A net as the planner sees it: what `poseidon plan --model net.prototxt` predicts with.
//
// The net is built as it is for training, so the layers, the shapes of what they train and what may travel as factors are
// those that training would have; only where records come from is replaced, since no data base needs to exist.
//
// Operations, of one record, counted as in examples/models: a multiplication with its addition counts 2. A convolution or inner
// product of W multiplications makes 2 W and one more for each output that gets a bias; backward 2 W for the weight's gradient,
// 2 W for the input's, where anything before the layer is trained, and the additions of the bias's. Pooling looks at each element
// of its window; a loss of softmax makes 5 operations for each score and 2 backward; every other layer one for each element
// that it makes, and one backward.
#pragma once

#include <cstdint>
#include <vector>

#include "engines/caffe/layers/registry.h"
#include "engines/caffe/proto/message.h"
#include "plan/model_description.h"

namespace poseidon::caffe {

// `record` is [channels, height, width] of what data layers give; empty: what the prototxt says (crop_size, with mean_value,
// force_color or force_gray for the channels), or else their data base. Throws ConfigError, also where neither says, and for a net
// without anything to train.
plan::ModelDescription describe(const proto::Message& net, const LayerRegistry& registry, const std::vector<std::int64_t>& record);

}  // namespace poseidon::caffe
