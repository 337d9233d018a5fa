// Any text as a window file: a ConfigError, or windows of images that the list has.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engines/caffe/data/window_list.h"
#include "engines/caffe/proto/config_error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace poseidon::caffe;
  try {
    const WindowList list = parse_window_list({reinterpret_cast<const char*>(data), size}, {}, "fuzz");
    for (const auto* const windows : {&list.foreground, &list.background}) {
      for (const Window& window : *windows) {
        if (window.image >= list.images.size() || window.x1 > window.x2 || window.y1 > window.y2) std::abort();
      }
    }
  } catch (const ConfigError&) {
  }
  return 0;
}
