// Trained models as safetensors, the format in which PyTorch's and others' weights travel: eight bytes of length, a JSON
// header of so many bytes, and the arrays' numbers one behind the other (https://github.com/huggingface/safetensors).
//
// An array is called LAYER.NAME there: "conv1.weight", "conv1.bias"; BatchNorm's are running_mean, running_var and
// scale_factor, by which Caffe divides the other two. Further arrays of a layer are called by their number. The order and
// the types of layers are kept in the header's metadata, which other programs pass over and may leave out.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "engines/caffe/proto/model_file.h"
#include "poseidon/error.h"

namespace poseidon::caffe::proto {

std::string safetensors_bytes(const TrainedNet& net);

// Also of files that other programs have written: then the layers come in the order of their arrays, without types, and
// weights before biases. F16 and BF16 become float32. Throws ConfigError for what is no such file, or holds an array of
// integers, and allocates no more than the file is long.
TrainedNet parse_safetensors(std::string_view bytes, std::string_view file_name);

// The same with files; written atomically.
Status write_safetensors(const std::filesystem::path& file, const TrainedNet& net);
TrainedNet read_safetensors(const std::filesystem::path& file);

}  // namespace poseidon::caffe::proto
