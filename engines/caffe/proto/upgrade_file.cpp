#include "engines/caffe/proto/upgrade_file.h"

#include <algorithm>
#include <string_view>

#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/message.h"
#include "engines/caffe/proto/upgrade.h"

namespace poseidon::caffe::proto {
namespace {

// A prototxt has no control characters but white space. A net in binary form has some: each layer begins with its field's
// number and type, which are the bytes A2 06, or 12 in the older forms.
bool is_binary(std::string_view bytes) {
  return std::any_of(bytes.begin(), bytes.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != '\v';
  });
}

UpgradedFile upgraded_text(std::string_view text, const std::filesystem::path& file, const char* type) {
  const Message message = parse_text(text, type, file.string());
  return {.bytes = message.as_text(), .is_text = true, .old_forms = message.old_forms()};
}

}  // namespace

UpgradedFile upgrade_net_file(const std::filesystem::path& file) {
  const std::string bytes = read_binary(file);
  if (!is_binary(bytes)) return upgraded_text(bytes, file, "NetParameter");
  ::caffe::NetParameter net;
  parse_binary(bytes, file.string(), "a net in text or binary form", net);
  Places nowhere;
  UpgradedFile upgraded{.bytes = {}, .is_text = false, .old_forms = upgrade_net(net, nowhere, file.string())};
  Result<std::string> written = to_binary(net, file.string());
  if (!written) throw ConfigError(written.error().message);
  upgraded.bytes = std::move(*written);
  return upgraded;
}

UpgradedFile upgrade_solver_file(const std::filesystem::path& file) {
  return upgraded_text(read_binary(file), file, "SolverParameter");
}

}  // namespace poseidon::caffe::proto
