// Sentences about what is wrong in a prototxt: which field is not one, of what, in which layer, and what may have been
// meant. Internal to proto/.
#pragma once

#include <string>
#include <string_view>

namespace google::protobuf {
class Descriptor;
}

namespace poseidon::caffe::proto {

// What protobuf's parser says, in its own words, and where: counted from 0.
struct TextError {
  int line = 0;
  int column = 0;
  std::string words;
};

// Throws the ConfigError for it. `root` is the type of the message that the text should be.
[[noreturn]] void throw_text_error(const TextError& error, std::string_view text,
                                   const google::protobuf::Descriptor* root, const std::string& file);

}  // namespace poseidon::caffe::proto
