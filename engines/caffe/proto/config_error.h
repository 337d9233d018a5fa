// The user's mistake: a prototxt, a flag, a data base or a snapshot that cannot be used. The text is one sentence that
// says what, where (file, line, layer) and what to do; the command prints it and ends with exit code 3.
#pragma once

#include <stdexcept>

namespace poseidon::caffe {

class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace poseidon::caffe
