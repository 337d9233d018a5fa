#include "engines/caffe/data/hdf5_server.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "base/file.h"
#include "base/philox.h"
#include "base/text.h"
#include "engines/caffe/data/hdf5_file.h"
#include "engines/caffe/data/image_list.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/data/row_shapes.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;
using hdf5::Object;

constexpr std::size_t kListBytesMax = std::size_t{1} << 30;
// Rows are read this much at a time where they follow each other.
constexpr std::size_t kBlockBytes = std::size_t{4} << 20;

std::size_t elements_of(const std::vector<std::int64_t>& row_shape) {
  return std::accumulate(
      row_shape.begin(), row_shape.end(), std::size_t{1},
      [](std::size_t product, std::int64_t extent) { return product * static_cast<std::size_t>(extent); });
}

// The rows of one dataset of the file that is open.
class Column {
 public:
  Column(const Object& file, const std::string& dataset) : dataset_(file.at(dataset)) {
    dataset_.require_numbers();
    row_shape_ = dataset_.shape();
    if (row_shape_.empty()) throw ConfigError(concat(dataset_.place(), ": is a single number, and should have rows"));
    rows_ = static_cast<std::uint64_t>(row_shape_.front());
    row_shape_.erase(row_shape_.begin());
  }

  std::uint64_t rows() const { return rows_; }
  const std::vector<std::int64_t>& row_shape() const { return row_shape_; }
  const std::string& place() const { return dataset_.place(); }

  // The bytes of a row. `ahead`: the rows behind it will be wanted next.
  template <typename T>
  std::string_view row(std::uint64_t number, bool ahead) {
    const std::size_t row_bytes = elements_of(row_shape_) * sizeof(T);
    if (number < begin_ || number >= end_) {
      const std::uint64_t count =
          ahead ? std::max<std::uint64_t>(1, kBlockBytes / std::max<std::size_t>(1, row_bytes)) : 1;
      begin_ = number;
      end_ = std::min(number + count, rows_);
      block_.resize((end_ - begin_) * row_bytes);
      dataset_.read_rows(begin_, end_ - begin_, reinterpret_cast<T*>(block_.data()));
    }
    return std::string_view(block_).substr((number - begin_) * row_bytes, row_bytes);
  }

 private:
  Object dataset_;
  std::vector<std::int64_t> row_shape_;
  std::uint64_t rows_ = 0;
  std::string block_;  // rows begin_ to end_ - 1
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = 0;
};

// A file of the list, with the columns that are wanted.
class RowsOfFile {
 public:
  RowsOfFile(const std::string& name, const Hdf5Rows& options) {
    const Object file = Object::open(name);
    for (const std::string& dataset : options.datasets) {
      columns_.emplace_back(file, dataset);
      if (columns_.back().rows() == rows()) continue;
      throw ConfigError(concat(columns_.back().place(), ": has ", columns_.back().rows(), " rows, and ",
                               columns_.front().place(), " has ", rows()));
    }
  }

  std::uint64_t rows() const { return columns_.front().rows(); }
  std::vector<std::vector<std::int64_t>> row_shapes() const {
    std::vector<std::vector<std::int64_t>> shapes;
    for (const Column& column : columns_) shapes.push_back(column.row_shape());
    return shapes;
  }
  std::string bytes(std::uint64_t row, const Hdf5Rows& options) {
    std::string all;
    for (Column& column : columns_) {
      all += options.in_double ? column.row<double>(row, !options.shuffle) : column.row<float>(row, !options.shuffle);
    }
    return all;
  }

 private:
  std::vector<Column> columns_;
};

// All files, of which one is open.
class Files {
 public:
  explicit Files(const ServeHdf5Options& options) : options_(options) {
    const Result<std::string> text = base::read_file(options.list, kListBytesMax);
    if (!text) throw ConfigError(text.error().message);
    names_ = parse_file_list(*text, options.list.string());
    for (const std::string& name : names_) look_at(name);
    if (total_ == 0) throw ConfigError(concat(options.list.string(), ": its files have not one row"));
  }

  std::uint64_t total() const { return total_; }
  const std::vector<std::vector<std::int64_t>>& row_shapes() const { return row_shapes_; }

  // Which row of which file the index is.
  struct Place {
    std::size_t file = 0;
    std::uint64_t row = 0;
  };
  Place find(std::uint64_t index) {
    const std::uint64_t pass = index / total_;
    std::uint64_t place = index % total_;
    order_files(pass);
    std::size_t nth = 0;
    while (place >= rows_[file_order_[nth]]) place -= rows_[file_order_[nth++]];
    const std::size_t file = file_order_[nth];
    if (!options_.rows.shuffle) return {file, place};
    order_rows(pass * names_.size() + nth, rows_[file]);
    return {file, row_order_[place]};
  }
  std::string bytes(const Place& place) {
    if (open_ != place.file) {
      file_.emplace(names_[place.file], options_.rows);
      open_ = place.file;
    }
    return file_->bytes(place.row, options_.rows);
  }
  std::string key(const Place& place) const { return concat(names_[place.file], ":", place.row); }

 private:
  void look_at(const std::string& name) {
    const RowsOfFile file(name, options_.rows);
    if (names_.front() == name) row_shapes_ = file.row_shapes();
    if (file.row_shapes() != row_shapes_) {
      throw ConfigError(concat(name, ": its rows are ", row_shapes_text(file.row_shapes()), ", and those of ",
                               names_.front(), " are ", row_shapes_text(row_shapes_)));
    }
    if (options_.rows.shuffle && file.rows() > std::numeric_limits<std::uint32_t>::max())
      throw ConfigError(concat(name, ": has more than 2^32 rows, which cannot be shuffled"));
    std::uint64_t bytes = options_.rows.in_double ? sizeof(double) : sizeof(float);
    for (const std::vector<std::int64_t>& shape : row_shapes_) {
      for (const std::int64_t extent : shape) {
        if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes) || bytes > kValueBytesMax)
          throw ConfigError(concat(name, ": its rows are larger than ", base::readable_bytes(kValueBytesMax)));
      }
    }
    rows_.push_back(file.rows());
    total_ += file.rows();
  }

  // Both orders are drawn for the number of the pass: so they are the same on all workers, and a job that goes on from
  // a snapshot need not draw the passes before.
  void order_files(std::uint64_t pass) {
    if (pass_ == pass) return;
    pass_ = pass;
    file_order_.resize(names_.size());
    std::iota(file_order_.begin(), file_order_.end(), std::size_t{0});
    if (!options_.rows.shuffle) return;
    shuffle(std::span(file_order_), base::RandomStream(options_.rows.seed, options_.rows.purpose + ".files"), pass);
  }
  void order_rows(std::uint64_t round, std::uint64_t rows) {
    if (round_ == round) return;
    round_ = round;
    row_order_.resize(rows);
    std::iota(row_order_.begin(), row_order_.end(), 0U);
    shuffle(std::span(row_order_), base::RandomStream(options_.rows.seed, options_.rows.purpose + ".rows"), round);
  }

  const ServeHdf5Options& options_;
  std::vector<std::string> names_;
  std::vector<std::uint64_t> rows_;  // of each file
  std::uint64_t total_ = 0;
  std::vector<std::vector<std::int64_t>> row_shapes_;

  std::optional<std::uint64_t> pass_;  // whose order file_order_ is
  std::vector<std::size_t> file_order_;
  std::optional<std::uint64_t> round_;  // whose order row_order_ is: a file in a pass
  std::vector<std::uint32_t> row_order_;
  std::optional<std::size_t> open_;  // which file file_ is
  std::optional<RowsOfFile> file_;
};

}  // namespace

std::vector<std::string> parse_file_list(std::string_view text, const std::string& file_name) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  std::vector<std::string> names;
  for (std::size_t begin = text.find_first_not_of(kBlanks); begin != text.npos;) {
    const std::size_t end = std::min(text.find_first_of(kBlanks, begin), text.size());
    names.emplace_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kBlanks, end);
  }
  if (names.empty()) throw ConfigError(concat(file_name, ": lists no file"));
  return names;
}

void serve_hdf5(const ServeHdf5Options& options, int pipe) {
  Files files(options);
  if (!write_frame(pipe, FrameKind::kHello, files.total(), kHelloKey, row_shapes_text(files.row_shapes()))) return;
  for (std::uint64_t taken = 0;; ++taken) {
    const std::uint64_t index =
        options.first + taken / options.take * (options.take + options.skip) + taken % options.take;
    const Files::Place place = files.find(index);
    const std::string bytes = files.bytes(place);
    const std::string key = files.key(place);
    if (!write_frame(pipe, FrameKind::kRecord, index, std::string_view(key).substr(0, kKeyBytesMax), bytes)) return;
  }
}

}  // namespace poseidon::caffe
