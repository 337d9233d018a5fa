// Small data bases for tests: folders that go away, and records whose contents follow from their number.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "engines/caffe/data/lmdb_store.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe::testing_data {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::path(testing::TempDir()) / "poseidon-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Record i: [1, side, side] pixels of value i mod 251, label i.
inline proto::Datum numbered_datum(int number, int side) {
  proto::Datum datum;
  datum.channels = 1;
  datum.height = datum.width = side;
  datum.label = number;
  datum.bytes.assign(datum.count(), static_cast<char>(number % 251));
  return datum;
}

// "00000012"
inline std::string numbered_key(int number) {
  const std::string digits = std::to_string(number);
  return std::string(8 - digits.size(), '0') + digits;
}

inline void write_numbered(const std::filesystem::path& folder, int count, int side, Backend backend = Backend::kLmdb) {
  const std::unique_ptr<StoreWriter> writer = create_store({folder, backend});
  for (int i = 0; i < count; ++i) writer->append(numbered_key(i), proto::datum_bytes(numbered_datum(i, side)));
  writer->finish();
}

inline void write_file(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

// A PGM file (one channel) of `width` by `height`, pixels 0, 1, 2, ... from `first` on.
inline void write_pgm(const std::filesystem::path& file, int width, int height, int first = 0) {
  std::string bytes = "P5\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n";
  for (int i = 0; i < width * height; ++i) bytes += static_cast<char>(first + i);
  write_file(file, bytes);
}

// What the ConfigError or SystemError says that `action` throws; "(no error)" when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  } catch (const SystemError& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace poseidon::caffe::testing_data
