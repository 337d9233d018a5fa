#include "engines/caffe/proto/message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <stdexcept>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/device_names.h"
#include "engines/caffe/proto/places.h"
#include "engines/caffe/proto/text_error.h"
#include "engines/caffe/proto/upgrade.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
using google::protobuf::TextFormat;

// Text of this depth is an attack, not a net: Caffe's own messages nest 6 deep.
constexpr int kTextDepthMax = 50;
// Some editors begin a file with it; protobuf would stumble over it.
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
// A net of 100,000 layers is written in less.
constexpr std::size_t kTextBytesMax = std::size_t{256} << 20;

[[noreturn]] void wrong_program(const std::string& what) {
  throw std::logic_error("caffe::proto::Message: " + what);
}

const Descriptor* type_called(std::string_view type_name) {
  static constexpr std::string_view kPackage = "caffe.";
  const std::string full = type_name.starts_with(kPackage) ? std::string(type_name) : concat(kPackage, type_name);
  // Naming a generated message makes sure that the schema is linked in and registered.
  const Descriptor* type = ::caffe::NetParameter::descriptor()->file()->pool()->FindMessageTypeByName(full);
  if (type == nullptr) wrong_program("the schema has no message " + full);
  return type;
}

// The double nearest to the shortest decimal that reads as `value`.
double as_written(float value) {
  std::array<char, 32> digits{};
  const auto [end, failed] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  double decimal = 0;
  if (failed != std::errc{} || std::from_chars(digits.data(), end, decimal).ec != std::errc{}) return value;
  return static_cast<float>(decimal) == value ? decimal : value;
}

// Keeps the first error; what follows is mostly its echo.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (found) return;
    found = true;
    first = {std::max(line, 0), std::max(column, 0), message};  // protobuf says -1 for what has no place
  }
  bool found = false;
  TextError first;
};

// What is not text at all gets no line and column but a guess at what it is.
void require_text(std::string_view text, const std::string& file) {
  if (text.size() > kTextBytesMax) {
    throw ConfigError(
        concat(file, ": has ", text.size(), " bytes, more than the ", kTextBytesMax, " that a text file may have"));
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool printable = c >= 0x20 || c == '\n' || c == '\r' || c == '\t' || c == '\f' || c == '\v';
    if (!printable || c == 0x7F) {
      throw ConfigError(concat(file, ": is not a text file (byte ", i, " has the value ", static_cast<int>(c),
                               "); is it a trained model rather than a prototxt?"));
    }
  }
}

}  // namespace

// --- Documents
// ----------------------------------------------------------------------------------------------------------

// One parsed file: the messages, and where each of their fields stood.
class Document {
 public:
  static Message parse(std::string_view text, std::string_view type_name, std::string_view file_name);

  std::string file;
  std::unique_ptr<google::protobuf::Message> root;
  Places places;
  std::vector<std::string> old_forms;

 private:
  void upgrade();
};

std::string Position::text() const {
  return line == 0 ? file : concat(file, ":", line, ":", column);
}

struct Message::View {
  std::shared_ptr<const Document> document;
  const google::protobuf::Message* message = nullptr;  // inside the document, or a default instance of the schema
  Position start;

  const Reflection& reflection() const { return *message->GetReflection(); }
  const FieldDescriptor* field(std::string_view name) const {
    const FieldDescriptor* found = message->GetDescriptor()->FindFieldByName(std::string(name));
    if (found == nullptr) wrong_program(concat(message->GetDescriptor()->full_name(), " has no field ", name));
    return found;
  }
  const FieldDescriptor* field(std::string_view name, bool repeated) const {
    const FieldDescriptor* found = field(name);
    if (found->is_repeated() != repeated) {
      wrong_program(
          concat(found->full_name(), " is ", repeated ? "singular" : "repeated", ", and was read as if it were not"));
    }
    return found;
  }
  Position place_of(const FieldDescriptor* which, int nth) const {
    const std::optional<Place> place = document->places.find({*message, which, which->is_repeated() ? nth : -1});
    return place ? Position{start.file, place->line + 1, place->column + 1} : start;
  }
  Message nested(const FieldDescriptor* which, int nth) const {
    auto view = std::make_shared<View>();
    view->document = document;
    view->message = which->is_repeated() ? &reflection().GetRepeatedMessage(*message, which, nth)
                                         : &reflection().GetMessage(*message, which);
    view->start = place_of(which, nth);
    return Message(std::move(view));
  }
};

Message Document::parse(std::string_view text, std::string_view type_name, std::string_view file_name) {
  silence_protobuf();
  const Descriptor* type = type_called(type_name);
  auto document = std::make_shared<Document>();
  document->file = file_name;
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  require_text(text, document->file);
  std::string renamed;
  if (type == ::caffe::SolverParameter::descriptor()) text = renamed = with_gpu_names(text);
  document->root.reset(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());

  FirstError error;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  TextFormat::ParseInfoTree positions;
  parser.WriteLocationsTo(&positions);
  parser.SetRecursionLimit(kTextDepthMax);
  google::protobuf::io::ArrayInputStream input(text.data(), static_cast<int>(text.size()));
  const bool parsed = parser.Parse(&input, document->root.get());
  if (!parsed || error.found) throw_text_error(error.first, text, type, document->file);
  std::vector<const FieldDescriptor*> set;
  document->root->GetReflection()->ListFields(*document->root, &set);
  if (set.empty())
    throw ConfigError(concat(document->file, ": is empty; a ", type->name(), " in text format was expected"));

  document->places.add(*document->root, positions);
  document->upgrade();

  auto view = std::make_shared<Message::View>();
  view->message = document->root.get();
  view->start = Position{document->file, 1, 1};
  view->document = std::move(document);
  return Message(std::move(view));
}

void Document::upgrade() {
  if (auto* net = dynamic_cast<::caffe::NetParameter*>(root.get())) old_forms = upgrade_net(*net, places, file);
  if (auto* solver = dynamic_cast<::caffe::SolverParameter*>(root.get())) {
    old_forms = upgrade_solver(*solver, places, file);
  }
  if (old_forms.empty()) return;
  base::log::info(concat(file, ": has ", base::join_words(old_forms), ", read as the present form; `poseidon upgrade-",
                         root->GetDescriptor() == ::caffe::NetParameter::descriptor() ? "net" : "solver",
                         "` rewrites the file"));
}

Message parse_text(std::string_view text, std::string_view type_name, std::string_view file_name) {
  return Document::parse(text, type_name, file_name);
}

Message read_text(const std::filesystem::path& file, std::string_view type_name) {
  const Result<std::string> text = base::read_file(file, kTextBytesMax);
  if (!text) throw ConfigError(text.error().message);
  return parse_text(*text, type_name, file.string());
}

// --- Reading fields
// -----------------------------------------------------------------------------------------------------

namespace {

[[noreturn]] void wrong_type(const FieldDescriptor* field, const char* wanted) {
  wrong_program(concat(field->full_name(), " is a ", field->cpp_type_name(), " and was read as ", wanted));
}

// `nth` is -1 for a singular field.
std::int64_t read_integer(const google::protobuf::Message& message, const FieldDescriptor* field, int nth) {
  const Reflection& r = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return nth < 0 ? r.GetInt32(message, field) : r.GetRepeatedInt32(message, field, nth);
    case FieldDescriptor::CPPTYPE_INT64:
      return nth < 0 ? r.GetInt64(message, field) : r.GetRepeatedInt64(message, field, nth);
    case FieldDescriptor::CPPTYPE_UINT32:
      return nth < 0 ? r.GetUInt32(message, field) : r.GetRepeatedUInt32(message, field, nth);
    case FieldDescriptor::CPPTYPE_UINT64:
      return static_cast<std::int64_t>(nth < 0 ? r.GetUInt64(message, field)
                                               : r.GetRepeatedUInt64(message, field, nth));
    default:
      wrong_type(field, "an integer");
  }
}

double read_real(const google::protobuf::Message& message, const FieldDescriptor* field, int nth) {
  const Reflection& r = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_FLOAT:
      return as_written(nth < 0 ? r.GetFloat(message, field) : r.GetRepeatedFloat(message, field, nth));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return nth < 0 ? r.GetDouble(message, field) : r.GetRepeatedDouble(message, field, nth);
    default:
      wrong_type(field, "a number");
  }
}

bool read_flag(const google::protobuf::Message& message, const FieldDescriptor* field, int nth) {
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_BOOL) wrong_type(field, "true or false");
  const Reflection& r = *message.GetReflection();
  return nth < 0 ? r.GetBool(message, field) : r.GetRepeatedBool(message, field, nth);
}

std::string read_string(const google::protobuf::Message& message, const FieldDescriptor* field, int nth) {
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) wrong_type(field, "text");
  const Reflection& r = *message.GetReflection();
  return nth < 0 ? r.GetString(message, field) : r.GetRepeatedString(message, field, nth);
}

std::string read_choice(const google::protobuf::Message& message, const FieldDescriptor* field, int nth) {
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_ENUM) wrong_type(field, "a choice");
  const Reflection& r = *message.GetReflection();
  return (nth < 0 ? r.GetEnum(message, field) : r.GetRepeatedEnum(message, field, nth))->name();
}

// All elements of a repeated field, each read by `read`.
template <typename T, typename Read>
std::vector<T> read_all(const google::protobuf::Message& message, const FieldDescriptor* field, Read read) {
  const int count = message.GetReflection()->FieldSize(message, field);
  std::vector<T> values;
  values.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) values.push_back(read(message, field, i));
  return values;
}

}  // namespace

Message::Message(std::shared_ptr<const View> view) : view_(std::move(view)) {}

bool Message::has(std::string_view field) const {
  const FieldDescriptor* which = view_->field(field);
  if (which->is_repeated()) return view_->reflection().FieldSize(*view_->message, which) > 0;
  return view_->reflection().HasField(*view_->message, which);
}

std::size_t Message::count(std::string_view field) const {
  return static_cast<std::size_t>(view_->reflection().FieldSize(*view_->message, view_->field(field, true)));
}

std::int64_t Message::integer(std::string_view field) const {
  return read_integer(*view_->message, view_->field(field, false), -1);
}
double Message::real(std::string_view field) const {
  return read_real(*view_->message, view_->field(field, false), -1);
}
bool Message::flag(std::string_view field) const {
  return read_flag(*view_->message, view_->field(field, false), -1);
}
std::string Message::text(std::string_view field) const {
  return read_string(*view_->message, view_->field(field, false), -1);
}
std::string Message::choice(std::string_view field) const {
  return read_choice(*view_->message, view_->field(field, false), -1);
}

Message Message::message(std::string_view field) const {
  const FieldDescriptor* which = view_->field(field, false);
  if (which->message_type() == nullptr) wrong_type(which, "a message");
  return view_->nested(which, -1);
}

std::vector<std::int64_t> Message::integers(std::string_view field) const {
  return read_all<std::int64_t>(*view_->message, view_->field(field, true), read_integer);
}
std::vector<double> Message::reals(std::string_view field) const {
  return read_all<double>(*view_->message, view_->field(field, true), read_real);
}
std::vector<bool> Message::flags(std::string_view field) const {
  return read_all<bool>(*view_->message, view_->field(field, true), read_flag);
}
std::vector<std::string> Message::texts(std::string_view field) const {
  return read_all<std::string>(*view_->message, view_->field(field, true), read_string);
}
std::vector<std::string> Message::choices(std::string_view field) const {
  return read_all<std::string>(*view_->message, view_->field(field, true), read_choice);
}

std::vector<Message> Message::messages(std::string_view field) const {
  const FieldDescriptor* which = view_->field(field, true);
  if (which->message_type() == nullptr) wrong_type(which, "messages");
  std::vector<Message> all;
  const int count = view_->reflection().FieldSize(*view_->message, which);
  for (int i = 0; i < count; ++i) all.push_back(view_->nested(which, i));
  return all;
}

Position Message::position() const {
  return view_->start;
}

Position Message::position(std::string_view field, std::size_t nth) const {
  const FieldDescriptor* which = view_->field(field);
  const int elements = which->is_repeated() ? view_->reflection().FieldSize(*view_->message, which) : 1;
  if (nth >= static_cast<std::size_t>(elements)) return view_->start;
  return view_->place_of(which, static_cast<int>(nth));
}

std::string Message::as_text() const {
  std::string text;
  TextFormat::PrintToString(*view_->message, &text);
  return text;
}

const std::vector<std::string>& Message::old_forms() const {
  return view_->document->old_forms;
}

std::string Message::type_name() const {
  return view_->message->GetDescriptor()->full_name();
}

}  // namespace poseidon::caffe::proto
