// Arrays of numbers as NumPy's .npy files (format version 1.0, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html),
// written from several processes at once, each row to its place.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::app {

class NpyFile {
 public:
  // The bytes before the numbers of a file of this shape, of float32 or float64 (`number_bytes` 4 or 8), in C's order.
  static std::string header(const std::vector<std::int64_t>& shape, std::size_t number_bytes);

  // Makes the file, as long as it will be, all zeros.
  static Status create(const std::filesystem::path& path, const std::vector<std::int64_t>& shape, std::size_t number_bytes);
  // Opens one that create() has made.
  static Result<NpyFile> open(const std::filesystem::path& path, const std::vector<std::int64_t>& shape, std::size_t number_bytes);
  NpyFile(NpyFile&& other) noexcept;
  NpyFile& operator=(NpyFile&&) = delete;
  ~NpyFile();

  // Bytes of one row, that is of all axes but the first.
  std::size_t row_bytes() const { return row_bytes_; }
  Status write_rows(std::uint64_t first_row, std::span<const std::byte> bytes) const;

 private:
  NpyFile(int descriptor, std::filesystem::path path, std::size_t header_bytes, std::size_t row_bytes)
      : descriptor_(descriptor), path_(std::move(path)), header_bytes_(header_bytes), row_bytes_(row_bytes) {}
  Error failed(const char* what) const;

  int descriptor_;
  std::filesystem::path path_;
  std::size_t header_bytes_;
  std::size_t row_bytes_;
};

}  // namespace poseidon::app
