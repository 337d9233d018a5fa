// The trainer's side of reading a data base, or image files by a list: records in order, from a child process that may
// die of a damaged file.
//
// LMDB and LevelDB map their files, so a lost or overwritten page ends the process that touches it, and no error
// handling in that process can help. The child `poseidon-data read` touches it; when it dies, next() says which record
// it was near. The child also decodes encoded images (it then becomes poseidon-images): that keeps OpenCV out of the
// trainer, for a reason that engines/caffe/data/CMakeLists.txt gives, and spreads the work over the cores. It reads
// ahead by as much as a pipe holds, and ends by itself when the trainer is gone.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/data/window_crop.h"

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

// How windows of images are read that a window file lists (window_list.h).
struct WindowFiles {
  std::string prefix;  // put before each path as it is: a folder ends with a slash
  WindowCrop crop;
  bool mirror = false;  // half of them, by a draw for each
  bool cache = false;   // keep the images' files in memory
  // From which overlap on a window shows an object, below which it is background, and the share of each global batch
  // (take + skip records) that shows objects.
  float foreground_threshold = 0.5F;
  float background_threshold = 0.5F;
  float foreground_share = 0.25F;
  // Of the draws, with the number of the record.
  std::uint64_t seed = 1;
  std::string purpose;
};

// How rows of HDF5 files are read that a list names.
struct Hdf5Rows {
  std::vector<std::string> datasets;  // a record is a row of each, one behind the other
  bool in_double = false;             // numbers come as double, else as float
  // Each pass goes through the files in another random order, and through the rows of each: functions of these two and
  // of its number.
  bool shuffle = false;
  std::uint64_t seed = 1;
  std::string purpose;
};

// One of `images`, `windows` and `hdf5`, or none of them for a data base.
struct RecordReaderOptions {
  std::filesystem::path source;  // the folder of a data base, or the list of images, windows or HDF5 files
  // What kind of data base it must be; without, whatever it is.
  std::optional<Backend> backend = std::nullopt;
  std::optional<ImageFiles> images = std::nullopt;
  std::optional<WindowFiles> windows = std::nullopt;
  std::optional<Hdf5Rows> hdf5 = std::nullopt;
  // Global record indices first, ..., first + take - 1 come, the next `skip` are passed over, and so on without end:
  // worker k of P with a batch of b takes first = i P b + k b, take = b, skip = (P - 1) b. Index i is record i mod N in
  // the order of keys, or of the list.
  std::uint64_t first = 0;
  std::uint64_t take = 1;  // at least 1
  std::uint64_t skip = 0;
  ImageColor color = ImageColor::kAsStored;
  // Encoded records of a data base that JpegDecoder can open come as they are stored, for the caller to decode.
  bool takes_jpegs = false;
  // Records of a data base come as the bytes that are stored, whatever they are: nothing is decoded, nor taken for a
  // Datum.
  bool verbatim = false;
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
  // The bytes of a Datum with plain numbers, or with a JPEG (takes_jpegs): proto::parse_datum. With `windows` those of a WindowRecord; with `hdf5`
  // numbers alone, whose shapes about() says (row_shapes.h).
  std::string value;
};

// Not for several threads at once. All functions may throw: ConfigError for a data base that cannot be used,
// SystemError where the disk is stuck or the child was not let live. After the first they throw the same again.
class RecordReader {
 public:
  // Starts the child and waits until it has opened the data base or read the list.
  explicit RecordReader(RecordReaderOptions options);
  // Ends the child, whatever it does, and collects it.
  ~RecordReader();
  RecordReader(RecordReader&&) noexcept;
  RecordReader& operator=(RecordReader&&) noexcept;

  // How many records the data base has, or images the list; nothing where the child cannot know (LevelDB).
  std::optional<std::uint64_t> size() const;
  // What else the child has said of the records: with `hdf5` their shapes.
  const std::string& about() const;
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
