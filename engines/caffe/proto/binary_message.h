// Whole protobuf messages as bytes, with the checks that all binary readers and writers here share. Internal to proto/.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "engines/caffe/proto/blob.h"
#include "poseidon/error.h"

namespace google::protobuf {
class Message;
}
namespace caffe {
class BlobProto;
}

namespace poseidon::caffe::proto {

// Protobuf prints to standard error when a parse fails; our errors say it better. Cheap to call again.
void silence_protobuf();

// Reads `bytes` into `into`. `where` names the file (or record), `what` says what it should be: "a trained model".
// Throws ConfigError for what is not such a message, or is one of another type: a known field that came with another
// type.
void parse_binary(std::string_view bytes, const std::string& where, const std::string& what,
                  google::protobuf::Message& into);
// The file's bytes, for the above.
std::string read_binary(const std::filesystem::path& file);
// An error when the message is larger than protobuf's format can say (2 GiB).
Result<std::string> to_binary(const google::protobuf::Message& message, const std::string& what);

// Throws ConfigError where shape and numbers do not fit each other. Empties `from` on the way, since models are large.
Blob take_blob(::caffe::BlobProto& from, const std::string& where);
void put_blob(const Blob& blob, ::caffe::BlobProto& into);
// The gradient beside an array; before take_blob(), which it leaves the shape to.
bool has_diff(const ::caffe::BlobProto& from);
Blob take_diff(::caffe::BlobProto& from, const std::string& where);
// The numbers alone, as the gradient beside the array that `into` holds already.
void put_diff(const Blob& diff, ::caffe::BlobProto& into);

}  // namespace poseidon::caffe::proto
