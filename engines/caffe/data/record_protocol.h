// What goes through the pipe from a data base's reader, the child process `poseidon-data read`, to the trainer.
//
// The reader writes frames, the trainer only reads. Both are of one build and on one host, so numbers are in its own
// byte order. A frame is a header, then the key, then the value:
//
//   offset  bytes
//        0      4  kind: 1 hello, 2 record, 3 error, 4 busy
//        4      4  length of the key
//        8      8  index
//       16      8  length of the value
//       24         key, value
//
//   hello   comes first and once: index is the number of records in the data base, or 0 where it is unknown; key is
//           kHelloKey, and value what the kind of source says of its records (of HDF5 files: their shapes), or empty.
//   record  index is the global record counter (it goes on counting when the data base begins anew), key and value are
//           the record's. Of a data base and of images the value is a Datum with plain numbers: the reader has decoded
//           it if it was an encoded image; with --verbatim it is what is stored. Of windows it is what
//           window_record.h says, of HDF5 files the row's numbers.
//   error   comes last: value is a sentence for the user.
//   busy    says only that the reader is at work: it passes over many records.
//
// A frame is written only when all of it has been read from the data base, so a reader that dies of a damaged page dies
// between two frames. A pipe that ends without an error frame means that the reader died.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "poseidon/error.h"

namespace poseidon::caffe {

constexpr std::string_view kHelloKey = "poseidon-data 2";  // the number is the version of this format
constexpr std::size_t kFrameHeaderBytes = 24;
constexpr std::size_t kKeyBytesMax = 4096;  // LMDB's own limit is 511
// An image of 18,000 by 18,000 pixels in three colours; larger is damage, and must not be allocated.
constexpr std::size_t kValueBytesMax = std::size_t{1} << 30;

enum class FrameKind : std::uint32_t { kHello = 1, kRecord = 2, kError = 3, kBusy = 4 };

struct FrameHeader {
  FrameKind kind = FrameKind::kRecord;
  std::uint32_t key_bytes = 0;
  std::uint64_t index = 0;
  std::uint64_t value_bytes = 0;
};

std::array<char, kFrameHeaderBytes> encode_frame_header(const FrameHeader& header);
// Refuses unknown kinds and lengths over the limits.
Result<FrameHeader> decode_frame_header(std::string_view bytes);

// Writes a whole frame to a pipe. False when nobody reads any more.
bool write_frame(int descriptor, FrameKind kind, std::uint64_t index, std::string_view key, std::string_view value);

// A key for people: what cannot be printed is escaped, and long ones are cut.
std::string readable_key(std::string_view key);

}  // namespace poseidon::caffe
