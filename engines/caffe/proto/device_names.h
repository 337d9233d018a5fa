// The device_id of solvers of Poseidon's first edition, a text that names GPUs (device_id: "0,1") where Caffe's is a
// number: one field cannot be both. Internal to proto/.
#pragma once

#include <string>
#include <string_view>

namespace poseidon::caffe::proto {

// The text of a solver with each such device_id called gpu_names, the schema's field for it. The name is as long, so
// what an error says of lines and columns stays right.
std::string with_gpu_names(std::string_view solver);

}  // namespace poseidon::caffe::proto
