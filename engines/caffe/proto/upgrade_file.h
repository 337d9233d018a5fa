// Whole files of older forms rewritten in the present one: what Caffe's upgrade_net_proto_text,
// upgrade_net_proto_binary and upgrade_solver_proto_text do.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe::proto {

struct UpgradedFile {
  std::string bytes;                   // of the new file
  bool is_text = true;                 // as the old one
  std::vector<std::string> old_forms;  // what was old, in words; empty: the file is of the present form
};

// A net as a prototxt, or with trained arrays as a .caffemodel; which of them is seen from the bytes. A prototxt loses
// its comments. Throw ConfigError.
UpgradedFile upgrade_net_file(const std::filesystem::path& file);
UpgradedFile upgrade_net_bytes(std::string_view bytes, const std::string& file_name);
UpgradedFile upgrade_solver_file(const std::filesystem::path& file);

}  // namespace poseidon::caffe::proto
