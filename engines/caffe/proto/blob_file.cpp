#include "engines/caffe/proto/blob_file.h"

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"

namespace poseidon::caffe::proto {

Blob parse_blob(std::string_view bytes, std::string_view file_name) {
  ::caffe::BlobProto message;
  parse_binary(bytes, std::string(file_name), "an array (.binaryproto)", message);
  return take_blob(message, std::string(file_name));
}

Blob read_blob(const std::filesystem::path& file) {
  return parse_blob(read_binary(file), file.string());
}

Result<std::string> blob_bytes(const Blob& blob) {
  ::caffe::BlobProto message;
  put_blob(blob, message);
  return to_binary(message, base::concat("the array ", base::readable_shape(blob.shape)));
}

Status write_blob(const std::filesystem::path& file, const Blob& blob) {
  const Result<std::string> bytes = blob_bytes(blob);
  if (!bytes)
    return Error{bytes.error().code, base::concat("cannot write ", file.string(), ": ", bytes.error().message)};
  return base::write_file_atomically(file, std::string_view(*bytes));
}

}  // namespace poseidon::caffe::proto
