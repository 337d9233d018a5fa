#include "engines/caffe/proto/places.h"

#include <stdexcept>
#include <vector>

#include "base/text.h"

namespace poseidon::caffe::proto {
namespace {

using ParseInfoTree = google::protobuf::TextFormat::ParseInfoTree;

// A list, `dim: [1, 28, 28]`, counts as one place: that of its first value.
std::optional<Place> place_in(const ParseInfoTree& tree, const Places::Field* field, int nth) {
  const int first = field->is_repeated() ? 0 : nth;
  for (int at = nth; at >= first; --at) {
    const google::protobuf::TextFormat::ParseLocation found = tree.GetLocation(field, at);
    if (found.line >= 0) return Place{found.line, found.column};
  }
  return std::nullopt;
}

}  // namespace

void Places::add(const Message& message, const ParseInfoTree& tree) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const Field*> set;
  reflection.ListFields(message, &set);
  for (const Field* field : set) {
    const bool repeated = field->is_repeated();
    const int end = repeated ? reflection.FieldSize(message, field) : 0;
    for (int nth = repeated ? 0 : -1; nth < end; ++nth) {
      if (const std::optional<Place> place = place_in(tree, field, nth)) places_[key({message, field, nth})] = *place;
      if (field->message_type() == nullptr) continue;
      const ParseInfoTree* const nested = tree.GetTreeForNested(field, nth);
      if (nested == nullptr) continue;
      add(repeated ? reflection.GetRepeatedMessage(message, field, nth) : reflection.GetMessage(message, field),
          *nested);
    }
  }
}

std::optional<Place> Places::find(const Value& value) const {
  const auto found = places_.find(key(value));
  return found == places_.end() ? std::nullopt : std::optional(found->second);
}

void Places::copy(const Value& from, const Value& to) {
  if (const std::optional<Place> place = find(from)) places_[key(to)] = *place;
}

std::string Places::text(const std::string& file, const Value& value) const {
  const std::optional<Place> place = find(value);
  return place ? Position{file, place->line + 1, place->column + 1}.text() : file;
}

const Places::Field* field_of(const Places::Message& message, const char* name) {
  const Places::Field* const field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr) throw std::logic_error(base::concat(message.GetTypeName(), " has no field ", name));
  return field;
}

}  // namespace poseidon::caffe::proto
