// Where the fields of a parsed text stood. Internal to proto/.
//
// Protobuf keeps this in a tree beside the message, by the field's number of order. Upgrading moves fields from one
// message to another, and errors should still point at what the user wrote; so the tree is turned into a table by the
// address of the message, which a field takes along when it moves. Addresses of nested messages do not change with
// that.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "engines/caffe/proto/message.h"

namespace poseidon::caffe::proto {

// Counted from 0.
struct Place {
  int line = 0;
  int column = 0;
};

class Places {
 public:
  using Message = google::protobuf::Message;
  using Field = google::protobuf::FieldDescriptor;
  // One value of a field; `nth` is -1 for a singular one.
  struct Value {
    const Message& message;
    const Field* field;
    int nth = -1;
  };

  // Of everything that is set in `message` and below.
  void add(const Message& message, const google::protobuf::TextFormat::ParseInfoTree& tree);
  std::optional<Place> find(const Value& value) const;
  // `to` stands where `from` stood, if that is known.
  void copy(const Value& from, const Value& to);
  // "net.prototxt:3:5", or the file alone where the place is not known: in a binary file none is.
  std::string text(const std::string& file, const Value& value) const;

 private:
  using Key = std::tuple<const Message*, const Field*, int>;
  static Key key(const Value& value) { return {&value.message, value.field, value.nth}; }

  std::map<Key, Place> places_;
};

// The field of that name. The schema has it, or it is a mistake of the program.
const Places::Field* field_of(const Places::Message& message, const char* name);

}  // namespace poseidon::caffe::proto
