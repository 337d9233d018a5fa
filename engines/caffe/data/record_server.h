// The child's side: reads a data base and writes its records into a pipe, until nobody reads there any more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engines/caffe/data/backend.h"

namespace poseidon::caffe {

struct ServeOptions {
  std::filesystem::path database;
  std::optional<Backend> backend = std::nullopt;  // what kind it must be; without, whatever it is
  // Global record indices first, first + 1, ..., first + take - 1 are sent, the next `skip` are not, and so on without
  // end. Index i is record i mod N of the N in the data base, in the order of keys.
  std::uint64_t first = 0;
  std::uint64_t take = 1;
  std::uint64_t skip = 0;
  // Somebody else has sent the hello and the records before this index: go on here.
  std::optional<std::uint64_t> go_on_at;
  // Send a JPEG as it is stored, where JpegDecoder can open it.
  bool leaves_jpegs = false;
  // Send every record's bytes as they are stored, without a look at them.
  bool verbatim = false;
  // That decode; they change nothing in what is written. With one, a record is decoded when all before it are written.
  std::size_t threads = 1;
};

// An encoded record that is to be sent.
struct EncodedRecord {
  std::uint64_t index = 0;  // global
  std::string_view datum;   // its bytes
  std::string where;        // words that say which record it is, for messages
};
// Returns the numbers of the image as the bytes of a plain Datum; called by `threads` threads at once. Throws
// ConfigError.
using DecodeFn = std::function<std::string(const EncodedRecord&)>;

// Returns when the pipe's other end is closed. Throws ConfigError for whatever is wrong with the data base, when frames
// up to there have been written; the caller sends it as the last frame.
void serve_records(const ServeOptions& options, const DecodeFn& decode, int pipe);

}  // namespace poseidon::caffe
