// Which layers of a NetParameter take part: the state that the net is built for, and the layers' include and exclude
// rules.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engines/caffe/layers/layer.h"
#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {

struct NetState {
  Phase phase = Phase::kTrain;
  std::int64_t level = 0;
  std::vector<std::string> stages = {};
};

// The state with what a NetState message adds: its level, if it states one, and its stages. The phase stays.
NetState merged(NetState state, const proto::Message& message);

// The layers in the file's order. Throws ConfigError for a layer that has both kinds of rules.
std::vector<proto::Message> layers_for(const proto::Message& net, const NetState& state);

}  // namespace poseidon::caffe
