#include "engines/caffe/tools/write_rows.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>

#include "base/text.h"
#include "engines/caffe/data/hdf5_file.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/data/record_store.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// Rows are copied about this much at a time.
constexpr std::uint64_t kBlockBytes = 4 << 20;

// Reads rows of an array one after the other.
class Rows {
 public:
  Rows(const RowArray& array, std::size_t number_bytes) : array_(array), stream_(array.file, std::ios::binary) {
    row_numbers_ = 1;
    bool usable = !array.shape.empty();
    for (std::size_t axis = 1; axis < array.shape.size() && usable; ++axis) {
      usable = array.shape[axis] > 0 &&
               !__builtin_mul_overflow(row_numbers_, static_cast<std::uint64_t>(array.shape[axis]), &row_numbers_) &&
               row_numbers_ <= kValueBytesMax / number_bytes;
    }
    if (!usable || array.shape[0] < 0) {
      throw ConfigError(concat(array.name, ": is ", base::readable_shape(array.shape), ", which are no rows"));
    }
    if (!stream_) throw SystemError(concat("cannot read ", array.file.string(), ": ", std::strerror(errno)));
    stream_.seekg(static_cast<std::streamoff>(array.offset));
  }

  std::uint64_t row_numbers() const { return row_numbers_; }

  template <typename T>
  void read(std::uint64_t rows, std::vector<T>& into) {
    into.resize(rows * row_numbers_);
    stream_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size() * sizeof(T)));
    if (!stream_) throw SystemError(concat("cannot read ", array_.file.string(), ": it ends before its rows do"));
  }

 private:
  const RowArray& array_;
  std::ifstream stream_;
  std::uint64_t row_numbers_ = 1;
};

template <typename T>
void write_hdf5(const WriteRowsOptions& options) {
  hdf5::RowFile file(options.to);
  for (const RowArray& array : options.arrays) {
    Rows rows(array, sizeof(T));
    const auto total = static_cast<std::uint64_t>(array.shape[0]);
    const std::uint64_t step = std::max<std::uint64_t>(1, kBlockBytes / (rows.row_numbers() * sizeof(T)));
    for (std::uint64_t done = 0; done < total; done += step) {
      const std::uint64_t count = std::min(step, total - done);
      std::vector<T> numbers;
      rows.read(count, numbers);
      proto::Blob blob{.shape = array.shape, .values = std::move(numbers)};
      blob.shape[0] = static_cast<std::int64_t>(count);
      file.append(array.name, blob);
    }
  }
  file.finish();
}

template <typename T>
void write_data_base(const WriteRowsOptions& options) {
  const RowArray& array = options.arrays.front();
  if (array.shape.size() > 4) {
    throw ConfigError(concat("blob \"", array.name, "\" is ", base::readable_shape(array.shape),
                             "; a record has three axes at most: npy and hdf5 take any"));
  }
  Rows rows(array, sizeof(T));
  const std::unique_ptr<StoreWriter> writer =
      create_store({.folder = options.to,
                    .backend = options.format == RowsFormat::kLmdb ? Backend::kLmdb : Backend::kLevelDb,
                    .overwrite = true});
  const auto axis = [&](std::size_t number) {
    return number < array.shape.size() ? static_cast<int>(array.shape[number]) : 1;
  };
  proto::Datum datum{.channels = axis(1), .height = axis(2), .width = axis(3)};
  std::vector<T> row;
  for (std::int64_t number = 0; number < array.shape[0]; ++number) {
    rows.read(1, row);
    datum.floats.resize(row.size());
    std::transform(row.begin(), row.end(), datum.floats.begin(), [](T value) { return static_cast<float>(value); });
    std::array<char, 32> key{};
    std::snprintf(key.data(), key.size(), "%010lld", static_cast<long long>(number));
    writer->append(key.data(), proto::datum_bytes(datum));
  }
  writer->finish();
}

}  // namespace

void write_rows(const WriteRowsOptions& options) {
  if (options.arrays.empty()) throw ConfigError("there is no array to write");
  if (options.format == RowsFormat::kHdf5) {
    options.in_double ? write_hdf5<double>(options) : write_hdf5<float>(options);
    return;
  }
  if (options.arrays.size() > 1) throw ConfigError("a data base is made of one array");
  options.in_double ? write_data_base<double>(options) : write_data_base<float>(options);
}

}  // namespace poseidon::caffe
