// HDF5 files, as much of them as Caffe's have: groups in groups, and datasets of numbers or text in them.
//
// The library follows addresses and sizes that it reads from the file; a damaged file may end the process, have it walk
// in circles or ask for any amount of memory. So only child processes open such files (data_filter.h, record_reader.h),
// and what a dataset claims to hold is compared with what is stored of it before room is made for it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/proto/blob.h"

namespace poseidon::caffe::hdf5 {

// A file, a group or a dataset that is open; copies are the same one. Throws ConfigError with the name of the file for
// whatever is not as it should be.
class Object {
 public:
  // Opens a file for reading.
  static Object open(const std::filesystem::path& file);
  // The same with a file that is in memory, which is borrowed; `name` is for messages.
  static Object open_bytes(std::string_view bytes, const std::string& name);
  // A new file in memory.
  static Object create();
  // The bytes of a file that create() has made.
  std::string bytes() const;

  // What a group has in it, in the order of names.
  std::vector<std::string> names() const;
  bool has(const std::string& name) const;
  // The same for a name with slashes.
  bool has_path(const std::string& name) const;
  bool is_group(const std::string& name) const;
  // Opens a group or a dataset.
  Object at(const std::string& name) const;
  // Makes a group. `name` may have slashes: then those that lead to it are made, or used, on the way.
  Object make_group(const std::string& name) const;

  // Of a dataset.
  std::vector<std::int64_t> shape() const;
  // Floating-point numbers of eight bytes, which come as doubles.
  bool is_double() const;
  // Throws where a dataset is not of numbers, or claims to hold more than is stored.
  void require_numbers() const;
  proto::Blob read_blob() const;
  // Rows `first` to `first + count - 1` of the first axis, as float or double, into room for them.
  void read_rows(std::uint64_t first, std::uint64_t count, float* into) const;
  void read_rows(std::uint64_t first, std::uint64_t count, double* into) const;

  // Datasets by name, as Caffe's tools have them: whole numbers as one element of one axis, text with its final zero.
  std::int64_t integer(const std::string& name) const;
  std::string text(const std::string& name) const;
  void put_integer(const std::string& name, std::int64_t value) const;  // of 32 bits, as Caffe's
  void put_integer64(const std::string& name, std::uint64_t value) const;
  void put_text(const std::string& name, const std::string& value) const;
  void put_blob(const std::string& name, const proto::Blob& blob) const;

  // "model.caffemodel.h5: /data/conv1/0"
  const std::string& place() const { return place_; }

 private:
  struct Handle;

  Object(std::shared_ptr<const Handle> handle, std::string place)
      : handle_(std::move(handle)), place_(std::move(place)) {}
  template <typename T>
  void read_rows_as(std::uint64_t first, std::uint64_t count, std::int64_t type, T* into) const;
  void put(const std::string& name, std::int64_t type, const std::vector<std::int64_t>& shape, const void* data) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::shared_ptr<const Handle> handle_;
  std::string place_;
};

// Numbers that are read from or written to an HDF5 file one row of an array after the other.
class RowFile {
 public:
  // A new file under a temporary name beside `file`; its datasets grow. Throws SystemError.
  explicit RowFile(const std::filesystem::path& file);
  // Without finish(), removes what was written.
  ~RowFile();
  RowFile(const RowFile&) = delete;
  RowFile& operator=(const RowFile&) = delete;

  // Appends `rows` rows of that shape to the dataset, which is made with the first ones. Throws ConfigError for rows of
  // another shape than those before.
  void append(const std::string& dataset, const proto::Blob& rows);
  // Gives the file its name.
  void finish();

 private:
  struct Handles;

  std::filesystem::path file_;
  std::filesystem::path temporary_;
  std::unique_ptr<Handles> handles_;
};

}  // namespace poseidon::caffe::hdf5
