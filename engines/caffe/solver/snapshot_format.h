// The two forms of Caffe's models and states (snapshot_format).
#pragma once

#include <cstdint>

namespace poseidon::caffe {

enum class SnapshotFormat : std::uint8_t { kProtobuf, kHdf5 };

}  // namespace poseidon::caffe
