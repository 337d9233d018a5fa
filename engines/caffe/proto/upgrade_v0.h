// The first form of layers turned into the second. Internal to proto/, the first step of upgrade.h.
#pragma once

#include <string>

#include "engines/caffe/proto/places.h"

namespace caffe {
class NetParameter;
}

namespace poseidon::caffe::proto {

bool has_v0_layers(const ::caffe::NetParameter& net);
void upgrade_v0_layers(::caffe::NetParameter& net, Places& places, const std::string& file);

}  // namespace poseidon::caffe::proto
