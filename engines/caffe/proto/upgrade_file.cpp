#include "engines/caffe/proto/upgrade_file.h"

#include <algorithm>

#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/message.h"
#include "engines/caffe/proto/upgrade.h"

namespace poseidon::caffe::proto {
namespace {

// A prototxt has no control characters but white space. A net in binary form has some: each layer begins with its
// field's number and type, which are the bytes A2 06, or 12 in the older forms.
bool is_binary(std::string_view bytes) {
  return std::any_of(bytes.begin(), bytes.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != '\v';
  });
}

UpgradedFile upgrade_text(std::string_view text, const std::string& file_name, const char* type) {
  const Message message = parse_text(text, type, file_name);
  return {.bytes = message.as_text(), .is_text = true, .old_forms = message.old_forms()};
}

}  // namespace

UpgradedFile upgrade_net_bytes(std::string_view bytes, const std::string& file_name) {
  if (!is_binary(bytes)) return upgrade_text(bytes, file_name, "NetParameter");
  ::caffe::NetParameter net;
  parse_binary(bytes, file_name, "a net in text or binary form", net);
  Places nowhere;
  UpgradedFile upgraded{.bytes = {}, .is_text = false, .old_forms = upgrade_net(net, nowhere, file_name)};
  Result<std::string> written = to_binary(net, file_name);
  if (!written) throw ConfigError(written.error().message);
  upgraded.bytes = std::move(*written);
  return upgraded;
}

UpgradedFile upgrade_net_file(const std::filesystem::path& file) {
  return upgrade_net_bytes(read_binary(file), file.string());
}

UpgradedFile upgrade_solver_file(const std::filesystem::path& file) {
  return upgrade_text(read_binary(file), file.string(), "SolverParameter");
}

}  // namespace poseidon::caffe::proto
