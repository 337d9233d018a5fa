// Single arrays in files of their own (BlobProto in binary form): the mean image of a data base, .binaryproto.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "engines/caffe/proto/blob.h"
#include "poseidon/error.h"

namespace poseidon::caffe::proto {

// Throw ConfigError for a file that is missing, truncated, damaged or of another kind. Shapes of the old form (num,
// channels, height, width) come as four axes.
Blob read_blob(const std::filesystem::path& file);
Blob parse_blob(std::string_view bytes, std::string_view file_name);

Result<std::string> blob_bytes(const Blob& blob);
Status write_blob(const std::filesystem::path& file, const Blob& blob);

}  // namespace poseidon::caffe::proto
