#include "engines/caffe/proto/move_field.h"

#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "base/text.h"

namespace poseidon::caffe::proto {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;

// All that a field of these schemas can hold but messages; choices by their names.
using Value = std::variant<std::int64_t, double, bool, std::string>;

[[noreturn]] void wrong_type(const FieldDescriptor* field) {
  throw std::logic_error(base::concat(field->full_name(), " cannot be moved: it is a ", field->cpp_type_name()));
}

Value read(const FieldOf& from, int nth) {
  const Reflection& r = *from.message.GetReflection();
  const FieldDescriptor* const f = from.field;
  const google::protobuf::Message& m = from.message;
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return std::int64_t{nth < 0 ? r.GetInt32(m, f) : r.GetRepeatedInt32(m, f, nth)};
    case FieldDescriptor::CPPTYPE_UINT32:
      return std::int64_t{nth < 0 ? r.GetUInt32(m, f) : r.GetRepeatedUInt32(m, f, nth)};
    case FieldDescriptor::CPPTYPE_FLOAT:
      return double{nth < 0 ? r.GetFloat(m, f) : r.GetRepeatedFloat(m, f, nth)};
    case FieldDescriptor::CPPTYPE_BOOL:
      return nth < 0 ? r.GetBool(m, f) : r.GetRepeatedBool(m, f, nth);
    case FieldDescriptor::CPPTYPE_STRING:
      return nth < 0 ? r.GetString(m, f) : r.GetRepeatedString(m, f, nth);
    case FieldDescriptor::CPPTYPE_ENUM:
      return (nth < 0 ? r.GetEnum(m, f) : r.GetRepeatedEnum(m, f, nth))->name();
    default:
      wrong_type(f);
  }
}

void write_integer(const FieldOf& to, std::int64_t value, bool add) {
  const Reflection& r = *to.message.GetReflection();
  google::protobuf::Message* const m = &to.message;
  switch (to.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      const auto number = static_cast<std::int32_t>(value);
      return add ? r.AddInt32(m, to.field, number) : r.SetInt32(m, to.field, number);
    }
    case FieldDescriptor::CPPTYPE_INT64:
      return add ? r.AddInt64(m, to.field, value) : r.SetInt64(m, to.field, value);
    case FieldDescriptor::CPPTYPE_UINT32: {
      const auto number = static_cast<std::uint32_t>(value);
      return add ? r.AddUInt32(m, to.field, number) : r.SetUInt32(m, to.field, number);
    }
    default:
      wrong_type(to.field);
  }
}

void write_text(const FieldOf& to, std::string value, bool add) {
  const Reflection& r = *to.message.GetReflection();
  google::protobuf::Message* const m = &to.message;
  if (to.field->enum_type() == nullptr) {
    return add ? r.AddString(m, to.field, std::move(value)) : r.SetString(m, to.field, std::move(value));
  }
  const google::protobuf::EnumValueDescriptor* const choice = to.field->enum_type()->FindValueByName(value);
  if (choice == nullptr) wrong_type(to.field);
  return add ? r.AddEnum(m, to.field, choice) : r.SetEnum(m, to.field, choice);
}

void write(const FieldOf& to, Value value, bool add) {
  const Reflection& r = *to.message.GetReflection();
  google::protobuf::Message* const m = &to.message;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return write_integer(to, *integer, add);
  if (auto* text = std::get_if<std::string>(&value)) return write_text(to, std::move(*text), add);
  if (const auto* flag = std::get_if<bool>(&value)) {
    return add ? r.AddBool(m, to.field, *flag) : r.SetBool(m, to.field, *flag);
  }
  const auto real = static_cast<float>(std::get<double>(value));
  return add ? r.AddFloat(m, to.field, real) : r.SetFloat(m, to.field, real);
}

int count(const FieldOf& of) {
  const Reflection& r = *of.message.GetReflection();
  if (of.field->is_repeated()) return r.FieldSize(of.message, of.field);
  return r.HasField(of.message, of.field) ? 1 : 0;
}

// Takes the messages out without copying them: arrays of a model are large.
std::vector<google::protobuf::Message*> release(const FieldOf& from) {
  const Reflection& r = *from.message.GetReflection();
  if (!from.field->is_repeated()) return {r.ReleaseMessage(&from.message, from.field)};
  std::vector<google::protobuf::Message*> all(static_cast<std::size_t>(count(from)));
  for (std::size_t i = all.size(); i-- > 0;) all[i] = r.ReleaseLast(&from.message, from.field);
  return all;
}

void give(const FieldOf& to, google::protobuf::Message* message) {
  const Reflection& r = *to.message.GetReflection();
  if (to.field->is_repeated()) {
    r.AddAllocatedMessage(&to.message, to.field, message);
  } else {
    r.SetAllocatedMessage(&to.message, message, to.field);
  }
}

}  // namespace

void copy_value(const FieldOf& from, int from_nth, const FieldOf& to, int to_nth, Places& places) {
  write(to, read(from, from_nth), to_nth >= 0);
  places.copy({from.message, from.field, from_nth}, {to.message, to.field, to_nth});
}

void move_field(const FieldOf& from, const FieldOf& to, Places& places) {
  const int values = count(from);
  if (values == 0) return;
  const int before = to.field->is_repeated() ? count(to) : -1;
  const auto nth_of = [](const FieldOf& of, int first, int i) { return of.field->is_repeated() ? first + i : -1; };
  if (from.field->message_type() == nullptr) {
    for (int i = 0; i < values; ++i) copy_value(from, nth_of(from, 0, i), to, nth_of(to, before, i), places);
  } else {
    int i = 0;
    for (google::protobuf::Message* const message : release(from)) {
      give(to, message);
      places.copy({from.message, from.field, nth_of(from, 0, i)}, {to.message, to.field, nth_of(to, before, i)});
      ++i;
    }
  }
  from.message.GetReflection()->ClearField(&from.message, from.field);
}

}  // namespace poseidon::caffe::proto
