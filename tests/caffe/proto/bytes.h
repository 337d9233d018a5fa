// Bytes as people write them, and the text of an error, for the tests of file formats.
#pragma once

#include <functional>
#include <sstream>
#include <string>

#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::testing_bytes {

// "0A 01 6E" -> three bytes.
inline std::string bytes_of(const std::string& hexadecimal) {
  std::istringstream words(hexadecimal);
  std::string bytes;
  unsigned value = 0;
  while (words >> std::hex >> value) bytes += static_cast<char>(value);
  return bytes;
}

// What the ConfigError says that `action` throws; "(no error)" when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace poseidon::caffe::testing_bytes
