// Moves what a field holds to a field of another message, whatever their types, and its place in the file with it.
// Internal to proto/: what upgrading is made of.
#pragma once

#include "engines/caffe/proto/places.h"

namespace poseidon::caffe::proto {

struct FieldOf {
  google::protobuf::Message& message;
  const google::protobuf::FieldDescriptor* field;
};

// One value, not a message. -1: the field is singular; a repeated field of `to` gets one value more, its `to_nth`.
// Numbers may change their type, choices keep their names. `from` keeps its value.
void copy_value(const FieldOf& from, int from_nth, const FieldOf& to, int to_nth, Places& places);

// All values of `from`, behind those of `to` where that is repeated. Messages keep their addresses.
void move_field(const FieldOf& from, const FieldOf& to, Places& places);

}  // namespace poseidon::caffe::proto
