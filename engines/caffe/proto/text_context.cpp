#include "engines/caffe/proto/text_context.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

namespace poseidon::caffe::proto {
namespace {

using google::protobuf::io::Tokenizer;

class Deaf : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override {}
};

// Beyond this the file is no net, and the names of what is open are of no use to anybody.
constexpr std::size_t kDepthMax = 1000;

const google::protobuf::Descriptor* message_of(const google::protobuf::Descriptor* type, const std::string& field) {
  if (type == nullptr) return nullptr;
  const google::protobuf::FieldDescriptor* found = type->FindFieldByName(field);
  return found == nullptr ? nullptr : found->message_type();
}

}  // namespace

TextContext context_at(std::string_view text, const google::protobuf::Descriptor* root, int line, int column) {
  google::protobuf::io::ArrayInputStream input(text.data(), static_cast<int>(text.size()));
  Deaf errors;
  Tokenizer tokens(&input, &errors);
  tokens.set_comment_style(Tokenizer::SH_COMMENT_STYLE);

  TextContext context;
  std::vector<OpenMessage>& open = context.open;
  open.push_back({root, "", ""});
  std::string field;  // the identifier that the next brace or value belongs to
  while (tokens.Next()) {
    const Tokenizer::Token& token = tokens.current();
    if (token.line > line || (token.line == line && token.column >= column)) break;
    context.token_line = token.line;
    context.token_column = token.column;
    if (token.type == Tokenizer::TYPE_IDENTIFIER && tokens.previous().text != ":") {
      field = token.text;
    } else if (token.type == Tokenizer::TYPE_STRING && field == "name") {
      Tokenizer::ParseString(token.text, &open.back().name);
    } else if (token.text == "{" || token.text == "<") {
      if (open.size() == kDepthMax) break;
      open.push_back({message_of(open.back().type, field), field, ""});
      field.clear();
    } else if ((token.text == "}" || token.text == ">") && open.size() > 1) {
      field = open.back().field;  // in a list another of the same may follow: [{...}, {...}]
      open.pop_back();
    }
  }
  return context;
}

}  // namespace poseidon::caffe::proto
