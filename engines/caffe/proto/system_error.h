// The operating system said no: a full disk, a folder that cannot be made. Nothing is wrong with what the user wrote. The text
// is one sentence that names the file; the command prints it and ends with exit code 5.
#pragma once

#include <stdexcept>

namespace poseidon::caffe {

class SystemError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace poseidon::caffe
