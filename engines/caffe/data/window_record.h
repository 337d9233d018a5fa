// A window as it comes from the child: its pixels, and where they belong in the square that the net sees.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {

struct WindowRecord {
  std::int32_t left = 0;
  std::int32_t top = 0;
  proto::Datum pixels;  // mirrored already, where it is
};

// Bytes: left and top with four each, then the datum.
std::string window_bytes(const WindowRecord& window);
// `where` is for messages. Throws ConfigError.
WindowRecord parse_window(std::string_view bytes, std::string_view where);

}  // namespace poseidon::caffe
