// What Data and ImageData have in common: records from a child process become batches, made ready by a thread that is
// some batches ahead.
//
// The records of a batch are those that the forward pass asks for: consecutive ones from `first_record` on, counted
// over the whole training by all workers and all passes through the data. The thread goes on as the pass says that it
// will (`record_stride`); when a pass asks for other records, it starts anew there.
//
// Without a shared file system (`shared_file_system: false`) worker k has a part of the data, SOURCE_k, and takes its
// batches from there. Parts count as dealt in turn: record j of part k has the number j P + k, for random draws.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/transform.h"
#include "engines/caffe/layers/layer.h"
#include "engines/caffe/layers/prefetcher.h"

namespace poseidon::caffe {

class RecordLayer : public Layer {
 public:
  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override;
  std::size_t records_per_batch() const override { return static_cast<std::size_t>(batch_.records); }
  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override;

 protected:
  struct Batch {
    at::Tensor images;  // [records, channels, height, width]
    at::Tensor labels;  // [records]
  };
  struct BatchShape {
    std::int64_t records = 0;
    Shape image;  // [channels, height, width]
  };

  // `settings` is the field with the type's own settings, "data_param": it has source, batch_size and rand_skip.
  RecordLayer(const LayerConfig& config, std::string_view settings);

  const proto::Message& settings() const { return settings_; }
  const Transform& transform() const { return transform_; }
  // The last thing in the constructor of a type: reads the first record, whose extents all others must have. The range
  // of records in `reader` is left to this class.
  void open(RecordReaderOptions reader);

 private:
  class BatchMaker;

  void seek(std::uint64_t first_record, std::uint64_t stride);
  std::filesystem::path own_part(const std::filesystem::path& source) const;
  Shape images_shape() const;
  // What is wrong with the data is told with the layer's name and place.
  template <typename Action>
  auto or_fail(const Action& action) -> decltype(action());

  proto::Message settings_;
  Transform transform_;
  WorkerPlace part_;  // whose part `reader_` reads; of a shared source the only one
  RecordReaderOptions reader_;
  BatchShape batch_;
  std::size_t batches_ahead_ = 0;
  std::uint64_t skipped_ = 0;  // rand_skip's draw

  std::uint64_t next_record_ = 0;  // what the thread will yield next
  std::uint64_t stride_ = 0;       // 0: it does not run
  std::optional<Prefetcher<Batch>> batches_;
};

}  // namespace poseidon::caffe
