#include "engines/caffe/proto/text_error.h"

#include <google/protobuf/descriptor.h>

#include "base/text.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/message.h"
#include "engines/caffe/proto/text_context.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;
using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;

// The text between the nth pair of double quotes in protobuf's message, nth from 0.
std::string quoted(const std::string& message, int nth) {
  std::size_t begin = message.find('"');
  for (int i = 0; i < 2 * nth && begin != std::string::npos; ++i) begin = message.find('"', begin + 1);
  if (begin == std::string::npos) return "";
  const std::size_t end = message.find('"', begin + 1);
  return end == std::string::npos ? "" : message.substr(begin + 1, end - begin - 1);
}

std::vector<std::string> field_names(const Descriptor* type) {
  std::vector<std::string> names;
  for (int i = 0; i < type->field_count(); ++i) names.push_back(type->field(i)->name());
  return names;
}

// The fields of `type` that are messages and have a field of this name themselves: people forget the inner braces.
std::string inner_homes(const Descriptor* type, const std::string& name) {
  std::vector<std::string> homes;
  for (int i = 0; i < type->field_count() && homes.size() < 3; ++i) {
    const FieldDescriptor* field = type->field(i);
    if (field->message_type() != nullptr && field->message_type()->FindFieldByName(name) != nullptr) {
      homes.push_back(field->name());
    }
  }
  return homes.empty() ? "" : "; it belongs inside " + base::join_words(homes) + " { ... }";
}

std::string described(const std::vector<OpenMessage>& open) {
  if (open.size() > 1 && !open.back().field.empty()) return open.back().field;
  return open.back().type == nullptr ? "this message" : open.back().type->name();
}

std::string unknown_field(const std::string& name, const std::vector<OpenMessage>& open) {
  const Descriptor* type = open.back().type;
  const std::string sentence = concat("\"", name, "\" is not a field of ", described(open));
  if (type == nullptr) return sentence;
  if (type == ::caffe::NetParameter::descriptor()) {
    if (open.size() == 1 && ::caffe::SolverParameter::descriptor()->FindFieldByName(name) != nullptr) {
      return sentence + "; it is one of a solver: are net and solver file mixed up?";
    }
  }
  if (open.size() == 1 && type == ::caffe::SolverParameter::descriptor() && (name == "layer" || name == "layers")) {
    return sentence + "; it is one of a net: are net and solver file mixed up?";
  }
  const std::string near = base::did_you_mean(name, field_names(type));
  return sentence + (near.empty() ? inner_homes(type, name) : near);
}

std::string unknown_choice(const std::string& name, const std::string& field_name,
                           const std::vector<OpenMessage>& open) {
  const FieldDescriptor* field = open.back().type == nullptr ? nullptr : open.back().type->FindFieldByName(field_name);
  const EnumDescriptor* choices = field == nullptr ? nullptr : field->enum_type();
  std::string sentence = concat("\"", name, "\" is not a value of ", field_name);
  if (choices == nullptr) return sentence;
  std::vector<std::string> names;
  for (int i = 0; i < choices->value_count(); ++i) names.push_back(choices->value(i)->name());
  sentence += ", which takes " + base::join_words(names);
  return sentence + base::did_you_mean(name, names);
}

// Of the present or an older form.
bool is_layer(const Descriptor* type) {
  return type == ::caffe::LayerParameter::descriptor() || type == ::caffe::V1LayerParameter::descriptor() ||
         type == ::caffe::V0LayerParameter::descriptor();
}

std::string in_layer(const std::vector<OpenMessage>& open) {
  for (const OpenMessage& message : open) {
    if (is_layer(message.type) && !message.name.empty()) {
      return concat(" (in layer \"", message.name, "\")");
    }
  }
  return "";
}

}  // namespace

void throw_text_error(const TextError& error, std::string_view text, const Descriptor* root, const std::string& file) {
  const TextContext context = context_at(text, root, error.line, error.column);
  Position place{file, error.line + 1, error.column + 1};
  // Where protobuf has got nothing, the text has ended.
  const bool ended = error.words.ends_with("got: ") && context.open.size() > 1;
  std::string sentence = ended ? concat("the file ends inside ", described(context.open), "; a } is missing") : error.words;
  const bool field_unknown = error.words.find("has no field named") != std::string::npos;
  if (field_unknown || error.words.starts_with("Unknown enumeration value")) {
    place.line = context.token_line + 1;
    place.column = context.token_column + 1;
    sentence = field_unknown ? unknown_field(quoted(error.words, 1), context.open)
                             : unknown_choice(quoted(error.words, 0), quoted(error.words, 1), context.open);
  }
  throw ConfigError(concat(place.text(), ": ", sentence, in_layer(context.open)));
}

}  // namespace poseidon::caffe::proto
