// Where in a text-format file a given line and column is: inside which messages.
//
// Protobuf's parser says what is wrong and at which place, but neither in which layer, nor of which message an
// enumerator is. This walks the tokens up to that place and keeps track of the braces. It forgives everything: the file
// is known to be wrong.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace google::protobuf {
class Descriptor;
}

namespace poseidon::caffe::proto {

// One message that is open at the place, outermost first.
struct OpenMessage {
  const google::protobuf::Descriptor* type = nullptr;  // null inside a field that the schema does not know
  std::string field;                                   // the field that it is the value of; empty for the file itself
  std::string name;                                    // the value of its field `name`, if that came before
};

struct TextContext {
  std::vector<OpenMessage> open;
  // The last token before the place. Protobuf complains of a field or enumerator that it does not know when it has read
  // it, and gives the place behind it.
  int token_line = 0;
  int token_column = 0;
};

// Lines and columns count from 0, as protobuf does.
TextContext context_at(std::string_view text, const google::protobuf::Descriptor* root, int line, int column);

}  // namespace poseidon::caffe::proto
