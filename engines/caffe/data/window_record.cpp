#include "engines/caffe/data/window_record.h"

#include <cstring>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

constexpr std::size_t kHeaderBytes = 8;

}  // namespace

std::string window_bytes(const WindowRecord& window) {
  std::string bytes(kHeaderBytes, '\0');
  std::memcpy(bytes.data(), &window.left, 4);
  std::memcpy(bytes.data() + 4, &window.top, 4);
  return bytes + proto::datum_bytes(window.pixels);
}

WindowRecord parse_window(std::string_view bytes, std::string_view where) {
  if (bytes.size() < kHeaderBytes) throw ConfigError(base::concat(where, ": is no window"));
  WindowRecord window;
  std::memcpy(&window.left, bytes.data(), 4);
  std::memcpy(&window.top, bytes.data() + 4, 4);
  window.pixels = proto::parse_datum(bytes.substr(kHeaderBytes), where);
  return window;
}

}  // namespace poseidon::caffe
