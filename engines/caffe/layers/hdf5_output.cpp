// HDF5Output: keeps what it is given in an HDF5 file, bottom 0 as the dataset `data` and bottom 1 as `label`.
//
// The rows of all passes are one behind the other, in the order of the passes, and the file is there when the run is
// over (Net::finish), or when the net goes, if nobody has said so: a script's, say. Until then they are in two files
// beside it, FILE.data.partial and FILE.label.partial. (Caffe 1.0 writes its file in the first pass, and ends the
// program in the second.) With several workers each writes a file of its own, FILE.0, FILE.1, ...
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>

#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/data/row_shapes.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

// Rows of one dataset, in a temporary file.
class Rows {
 public:
  explicit Rows(const std::string& file) : file_(file) {
    descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor_ < 0) throw SystemError(base::concat("cannot write ", file_, ": ", std::strerror(errno)));
  }
  ~Rows() {
    ::close(descriptor_);
    ::unlink(file_.c_str());
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  const std::string& file() const { return file_; }
  // Of all rows together.
  const Shape& shape() const { return shape_; }

  // Throws ConfigError for rows of another shape than those before.
  void append(const at::Tensor& rows) {
    Shape row = rows.sizes().vec();
    if (!shape_.empty() && !std::equal(shape_.begin() + 1, shape_.end(), row.begin() + 1, row.end())) {
      throw ConfigError(base::concat("is given rows of the shape ", base::readable_shape(row), ", and was given ",
                                     base::readable_shape(shape_), " before"));
    }
    if (shape_.empty()) {
      shape_ = row;
      shape_[0] = 0;
    }
    const at::Tensor values = rows.detach().contiguous();
    std::string_view bytes(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) throw SystemError(base::concat("cannot write ", file_, ": ", std::strerror(errno)));
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    shape_[0] += row[0];
  }

 private:
  std::string file_;
  int descriptor_ = -1;
  Shape shape_;
};

class Hdf5Output final : public Layer {
 public:
  explicit Hdf5Output(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2, .tops_min = 0, .tops_max = 0}),
        file_(message().message("hdf5_output_param").text("file_name")) {
    if (file_.empty()) {
      fail_at(message().message("hdf5_output_param").position("file_name"),
              "needs the name of the file to write: hdf5_output_param { file_name: \"FILE.h5\" }");
    }
  }

  // What goes with an error leaves no file. Of a file that fails here nobody can be told but the log.
  ~Hdf5Output() override {
    if (std::uncaught_exceptions() > exceptions_) return;
    try {
      complete();
    } catch (const std::exception& error) {
      base::log::error(error.what());
    }
  }

  void finish() override { complete(); }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    for (std::size_t i = 0; i < bottoms.size(); ++i) {
      if (bottoms[i].empty()) fail(base::concat("needs rows, and ", describe_bottom(i, bottoms[i])));
    }
    if (bottoms[0][0] != bottoms[1][0]) {
      fail(base::concat("needs as many rows in both bottoms; ", describe_bottom(0, bottoms[0]), ", and ",
                        describe_bottom(1, bottoms[1])));
    }
    return {};
  }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    try {
      if (!data_) begin(context);
      data_->append(bottoms[0]);
      labels_->append(bottoms[1]);
    } catch (const ConfigError& error) {
      fail(error.what());
    } catch (const SystemError& error) {
      fail_to_write(error);
    }
    return {};
  }

 private:
  void begin(const ForwardContext& context) {
    own_file_ = file_;
    if (context.record_stride > context.records) {
      own_file_ = base::concat(file_, ".", context.first_record % context.record_stride / context.records);
    }
    data_ = std::make_unique<Rows>(own_file_ + ".data.partial");
    labels_ = std::make_unique<Rows>(own_file_ + ".label.partial");
  }

  // The rows become the file, and go whether or not they do. Does nothing where there are none.
  void complete() {
    const std::unique_ptr<Rows> data = std::move(data_);
    const std::unique_ptr<Rows> labels = std::move(labels_);
    if (!data || !labels) return;
    try {
      write(*data, *labels);
    } catch (const ConfigError& error) {
      fail(error.what());
    } catch (const SystemError& error) {
      fail_to_write(error);
    }
  }

  [[noreturn]] void fail_to_write(const SystemError& error) const {
    throw SystemError(base::concat(message().position().text(), ": layer \"", name(), "\" (", type(),
                                   ") has written nothing: ", error.what()));
  }

  void write(const Rows& data, const Rows& labels) const {
    std::vector<std::string> words = {"write-rows", "--format", "hdf5", "--to=" + own_file_};
    if (dtype() == at::kDouble) words.emplace_back("--double");
    for (const auto& [dataset, rows] : {std::pair("data", &data), std::pair("label", &labels)}) {
      words.insert(words.end(), {base::concat("--name=", dataset), "--file=" + rows->file(),
                                 "--shape=" + row_shapes_text({rows->shape()}), "--offset=0"});
    }
    run_data_program({.arguments = std::move(words), .name = own_file_, .wait_max = std::chrono::hours(24)});
  }

  std::string file_;
  int exceptions_ = std::uncaught_exceptions();
  // Since the first pass.
  std::string own_file_;  // this worker's
  std::unique_ptr<Rows> data_;
  std::unique_ptr<Rows> labels_;
};

}  // namespace

std::unique_ptr<Layer> make_hdf5_output(const LayerConfig& config) {
  return std::make_unique<Hdf5Output>(config);
}

}  // namespace poseidon::caffe
