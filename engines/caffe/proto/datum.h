// One record of a data base: an image and its class (Caffe's Datum).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe::proto {

struct Datum {
  int channels = 0;
  int height = 0;
  int width = 0;
  int label = 0;
  bool encoded = false;  // `bytes` is a whole image file, and the extents above may be missing
  std::string bytes;     // else one byte a number [channels, height, width], empty where `floats` has the numbers
  std::vector<float> floats;

  std::size_t count() const {
    return static_cast<std::size_t>(channels) * static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  }
};

// Throws ConfigError when the bytes are no Datum, or one whose extents do not fit its numbers. `where` begins the
// message: "examples/digits_lmdb: record 12 (key 00000012_a.png)".
Datum parse_datum(std::string_view bytes, std::string_view where);
std::string datum_bytes(Datum datum);

}  // namespace poseidon::caffe::proto
