// The trainer's side of reading a data base, or image files by a list: records in order, from a child process that may
// die of a damaged file.
//
// LMDB maps its file, so a lost or overwritten page ends the process that touches it, and no error handling in that
// process can help. The child `poseidon-data read` touches it; when it dies, next() says which record it was near. The
// child also decodes encoded images (it then becomes poseidon-images): that keeps OpenCV out of the trainer, for a
// reason that engines/caffe/data/CMakeLists.txt gives, and spreads the work over the cores. It reads ahead by as much
// as a pipe holds, and ends by itself when the trainer is gone.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace poseidon::caffe {

// What image files and encoded records are decoded to. Plain records stay as they are.
enum class ImageColor : std::uint8_t {
  kAsStored,
  kColor,  // three channels: blue, green, red
  kGray,   // one channel
};
std::string_view to_string(ImageColor color);  // as-stored, color, gray

// How image files are read that a list names, a path and a label in each line.
struct ImageFiles {
  std::string prefix;  // put before each path as it is: a folder ends with a slash
  int width = 0;       // what all are brought to (bilinear); both 0: they stay as they are
  int height = 0;
  // Each pass through the list has another random order, a function of these two and of its number.
  bool shuffle = false;
  std::uint64_t seed = 1;
  std::string purpose;
};

struct RecordReaderOptions {
  std::filesystem::path source;  // the folder of an LMDB; with `images` their list
  std::optional<ImageFiles> images = std::nullopt;
  // Global record indices first, ..., first + take - 1 come, the next `skip` are passed over, and so on without end:
  // worker k of P with a batch of b takes first = i P b + k b, take = b, skip = (P - 1) b. Index i is record i mod N in
  // the order of keys, or of the list.
  std::uint64_t first = 0;
  std::uint64_t take = 1;  // at least 1
  std::uint64_t skip = 0;
  ImageColor color = ImageColor::kAsStored;
  // Encoded records of a data base that JpegDecoder can open come as they are stored, for the caller to decode.
  bool takes_jpegs = false;
  // No disk that works takes longer for one record, not even over a network.
  std::chrono::milliseconds wait_max = std::chrono::seconds(60);
  // The program of the child; where empty, what data_program() finds.
  std::filesystem::path program;
};

// The environment's POSEIDON_DATA_PROGRAM, or poseidon-data in the folder of the running executable, or in ../bin
// beside that folder. Throws ConfigError when there is none.
std::filesystem::path data_program();

// How many threads make images ready: the environment's POSEIDON_DATA_THREADS; one on each core where that is 0 or not there.
std::size_t data_threads();

struct Record {
  std::uint64_t index = 0;  // the global record counter
  std::string key;
  std::string value;  // the bytes of a Datum with plain numbers, or with a JPEG (takes_jpegs): proto::parse_datum
};

// Not for several threads at once. All functions may throw: ConfigError for a data base that cannot be used, SystemError where
// the disk is stuck or the child was not let live. After the first they throw the same again.
class RecordReader {
 public:
  // Starts the child and waits until it has opened the data base or read the list.
  explicit RecordReader(RecordReaderOptions options);
  // Ends the child, whatever it does, and collects it.
  ~RecordReader();
  RecordReader(RecordReader&&) noexcept;
  RecordReader& operator=(RecordReader&&) noexcept;

  // How many records the data base has, or images the list.
  std::uint64_t size() const;
  // The next record without taking it: for its extents.
  const Record& peek();
  Record next();
  // The child, for tests and logs.
  int process() const;

 private:
  class Child;
  std::unique_ptr<Child> child_;
};

}  // namespace poseidon::caffe
