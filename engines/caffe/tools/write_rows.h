// Files of numbers become a data base or an HDF5 file: what `poseidon features` and the layer HDF5Output end with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace poseidon::caffe {

enum class RowsFormat : std::uint8_t { kHdf5, kLevelDb, kLmdb };

// Rows of numbers in a file, one behind the other.
struct RowArray {
  std::string name;
  std::filesystem::path file;
  std::uint64_t offset = 0;         // where they begin, in bytes
  std::vector<std::int64_t> shape;  // [rows, ...]
};

struct WriteRowsOptions {
  std::filesystem::path to;
  RowsFormat format = RowsFormat::kHdf5;
  bool in_double = false;  // the numbers are double, else float
  std::vector<RowArray> arrays;
};

// Replaces what is there, when all is written. An HDF5 file has a dataset for each array, of the same type of numbers;
// a data base is made of one array, of four axes at most: float_data of a Datum for each row, with its number in ten
// digits for a key, as Caffe's extract_features writes them. Throws ConfigError and SystemError.
void write_rows(const WriteRowsOptions& options);

}  // namespace poseidon::caffe
