// HDF5Data: rows of datasets in the HDF5 files that a list names, a top for each dataset.
//
// The records are the rows of all files, one behind the other. With `shuffle` each pass goes through the files in
// another random order and through the rows of each, the same on all workers; rows of several files do not mix, as in
// Caffe.
#include <ATen/ops/empty.h>

#include <cstring>

#include "engines/caffe/data/row_shapes.h"
#include "engines/caffe/layers/record_layer.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Hdf5Data final : public BatchLayer {
 public:
  explicit Hdf5Data(const LayerConfig& config)
      : BatchLayer(config, "hdf5_data_param", {.bottoms_min = 0, .bottoms_max = 0, .tops_max = BlobCounts::kAny}) {
    if (settings().text("source").empty()) {
      fail_at(settings().position("source"), "needs a list of HDF5 files: hdf5_data_param { source: \"FILE\" }");
    }
    if (message().has("transform_param")) {
      fail_at(message().position("transform_param"), "transforms no data, as in Caffe; remove transform_param");
    }
    RecordReaderOptions reader{.source = settings().text("source"),
                               .hdf5 = Hdf5Rows{.datasets = tops(),
                                                .in_double = dtype() == at::kDouble,
                                                .shuffle = settings().flag("shuffle"),
                                                .seed = seed(),
                                                .purpose = name() + ".shuffle"},
                               .program = {}};
    or_fail([&] {
      for (const Shape& row : parse_row_shapes(RecordReader(reader).about())) {
        shapes_.push_back({static_cast<std::int64_t>(records_per_batch())});
        shapes_.back().insert(shapes_.back().end(), row.begin(), row.end());
      }
    });
    read_from(std::move(reader),
              [shapes = shapes_, type = dtype()](RecordReader& from) { return make(from, shapes, type); });
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return shapes_; }

 private:
  static Batch make(RecordReader& reader, const std::vector<Shape>& shapes, at::ScalarType dtype) {
    Batch batch;
    for (const Shape& shape : shapes) batch.push_back(at::empty(shape, dtype));
    for (std::int64_t row = 0; row < shapes[0][0]; ++row) {
      const Record record = reader.next();
      std::size_t place = 0;
      for (const at::Tensor& top : batch) {
        const std::size_t bytes = top.nbytes() / static_cast<std::size_t>(top.size(0));
        if (place + bytes > record.value.size()) throw ConfigError(base::concat(record.key, ": is too short a row"));
        auto* const to = static_cast<char*>(top.mutable_data_ptr()) + static_cast<std::size_t>(row) * bytes;
        std::memcpy(to, record.value.data() + place, bytes);
        place += bytes;
      }
    }
    return batch;
  }

  std::vector<Shape> shapes_;
};

}  // namespace

std::unique_ptr<Layer> make_hdf5_data(const LayerConfig& config) {
  return std::make_unique<Hdf5Data>(config);
}

}  // namespace poseidon::caffe
