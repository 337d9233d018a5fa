#include "engines/caffe/proto/binary_message.h"

#include <google/protobuf/message.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/unknown_field_set.h>

#include <limits>
#include <optional>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;

// Lengths in protobuf's format are signed 32-bit numbers.
constexpr std::size_t kMessageBytesMax = std::numeric_limits<std::int32_t>::max();

// A field number that the schema knows, in a type that it does not have there: the bytes are of some other message.
// Numbers that the schema does not know at all are somebody's extension and do no harm.
bool has_field_of_other_type(const google::protobuf::Message& message) {
  const google::protobuf::UnknownFieldSet& unknown = message.GetReflection()->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i) {
    const google::protobuf::FieldDescriptor* known =
        message.GetDescriptor()->FindFieldByNumber(unknown.field(i).number());
    // An enumerator of somebody's extension is put among the unknown fields as well.
    if (known != nullptr && known->enum_type() == nullptr) return true;
  }
  return false;
}

// The product of a shape; nothing for a negative extent or a product beyond what memory can hold.
std::optional<std::size_t> elements_of(const std::vector<std::int64_t>& shape) {
  std::size_t product = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (__builtin_mul_overflow(product, static_cast<std::size_t>(extent), &product)) return std::nullopt;
  }
  return product;
}

template <typename T>
std::vector<T> take_numbers(google::protobuf::RepeatedField<T>& from) {
  std::vector<T> numbers(from.begin(), from.end());
  google::protobuf::RepeatedField<T> nothing;
  from.Swap(&nothing);  // unlike Clear(), gives the memory back
  return numbers;
}

}  // namespace

void silence_protobuf() {
  static const bool done = [] {
    google::protobuf::SetLogHandler(nullptr);
    return true;
  }();
  static_cast<void>(done);
}

void parse_binary(std::string_view bytes, const std::string& where, const std::string& what,
                  google::protobuf::Message& into) {
  silence_protobuf();
  if (bytes.empty()) throw ConfigError(concat(where, ": is empty; ", what, " was expected"));
  if (bytes.size() > kMessageBytesMax)
    throw ConfigError(concat(where, ": has ", bytes.size(), " bytes; ", what, " has less than 2 GiB"));
  if (!into.ParsePartialFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    throw ConfigError(concat(where, ": is not ", what, ", or it is truncated or damaged (", bytes.size(), " bytes)"));
  }
  if (has_field_of_other_type(into))
    throw ConfigError(concat(where, ": is not ", what, " but something else, or it is damaged"));
}

std::string read_binary(const std::filesystem::path& file) {
  Result<std::string> bytes = base::read_file(file, kMessageBytesMax);
  if (!bytes) throw ConfigError(bytes.error().message);
  return std::move(bytes).value();
}

Result<std::string> to_binary(const google::protobuf::Message& message, const std::string& what) {
  silence_protobuf();
  const std::size_t size = message.ByteSizeLong();
  if (size > kMessageBytesMax) {
    return Error{ErrorCode::kInvalid, concat(what, " takes ", size, " bytes, and Caffe's binary format ends at 2 GiB")};
  }
  std::string bytes(size, '\0');
  if (!message.SerializePartialToArray(bytes.data(), static_cast<int>(size))) {
    return Error{ErrorCode::kSystem, concat(what, " could not be turned into ", size, " bytes")};
  }
  return bytes;
}

namespace {

std::vector<std::int64_t> shape_of(const ::caffe::BlobProto& from) {
  const bool legacy =
      !from.has_shape() && (from.has_num() || from.has_channels() || from.has_height() || from.has_width());
  if (legacy) return {from.num(), from.channels(), from.height(), from.width()};
  return {from.shape().dim().begin(), from.shape().dim().end()};
}

Blob take(std::vector<std::int64_t> shape, google::protobuf::RepeatedField<float>& floats,
          google::protobuf::RepeatedField<double>& doubles, const std::string& where) {
  Blob blob{.shape = std::move(shape), .values = {}};
  const bool in_double = doubles.size() > 0;
  const auto numbers = static_cast<std::size_t>(in_double ? doubles.size() : floats.size());
  const std::optional<std::size_t> wanted = elements_of(blob.shape);
  if (!wanted || *wanted != numbers) {
    throw ConfigError(concat(where, ": has ", numbers, " numbers for the shape ", base::readable_shape(blob.shape),
                             "; it is damaged, or was written by something else"));
  }
  if (in_double) {
    blob.values = take_numbers(doubles);
  } else {
    blob.values = take_numbers(floats);
  }
  return blob;
}

}  // namespace

Blob take_blob(::caffe::BlobProto& from, const std::string& where) {
  return take(shape_of(from), *from.mutable_data(), *from.mutable_double_data(), where);
}

bool has_diff(const ::caffe::BlobProto& from) {
  return from.diff_size() > 0 || from.double_diff_size() > 0;
}

Blob take_diff(::caffe::BlobProto& from, const std::string& where) {
  return take(shape_of(from), *from.mutable_diff(), *from.mutable_double_diff(), where);
}

void put_blob(const Blob& blob, ::caffe::BlobProto& into) {
  ::caffe::BlobShape* shape = into.mutable_shape();  // also for a single number, whose shape is empty
  for (const std::int64_t extent : blob.shape) shape->add_dim(extent);
  if (const auto* floats = std::get_if<std::vector<float>>(&blob.values)) {
    into.mutable_data()->Add(floats->begin(), floats->end());
  } else {
    const auto& doubles = std::get<std::vector<double>>(blob.values);
    into.mutable_double_data()->Add(doubles.begin(), doubles.end());
  }
}

void put_diff(const Blob& diff, ::caffe::BlobProto& into) {
  if (const auto* floats = std::get_if<std::vector<float>>(&diff.values)) {
    into.mutable_diff()->Add(floats->begin(), floats->end());
  } else {
    const auto& doubles = std::get<std::vector<double>>(diff.values);
    into.mutable_double_diff()->Add(doubles.begin(), doubles.end());
  }
}

}  // namespace poseidon::caffe::proto
