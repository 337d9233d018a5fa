// What data layers have in common: records from a child process become batches, made ready by a thread that is
// some batches ahead.
//
// The records of a batch are those that the forward pass asks for: consecutive ones from `first_record` on, counted
// over the whole training by all workers and all passes through the data. The thread goes on as the pass says that it
// will (`record_stride`); when a pass asks for other records, it starts anew there.
//
// Without a shared file system (`shared_file_system: false`) worker k has a part of the data, SOURCE_k, and takes its
// batches from there. Parts count as dealt in turn: record j of part k has the number j P + k, for random draws.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/transform.h"
#include "engines/caffe/layers/layer.h"
#include "engines/caffe/layers/prefetcher.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {

class BatchLayer : public Layer {
 public:
  std::size_t records_per_batch() const override { return static_cast<std::size_t>(records_); }
  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override;

 protected:
  // One blob for each top; may have more than the layer has tops.
  using Batch = std::vector<at::Tensor>;
  // Makes the next batch. On the prefetching thread, which may outlive all but this class: what it needs it holds.
  using NextBatchFn = std::function<Batch()>;
  // Takes over the reader of a range of records, whose batches are wanted one after the other.
  using StartBatchesFn = std::function<NextBatchFn(RecordReader reader)>;
  // For batches that one thread makes, each from the next records alone.
  static StartBatchesFn one_by_one(std::function<Batch(RecordReader& reader)> make);

  // `settings` is the field with the type's own settings, "data_param": it has source and batch_size.
  BatchLayer(const LayerConfig& config, std::string_view settings, const BlobCounts& counts);

  const proto::Message& settings() const { return settings_; }
  // The last thing in the constructor of a type. The range of records in `reader` is left to this class; the first
  // `skipped` are passed over. `part`: whose part of the data it reads; of a shared source there is only one.
  void read_from(RecordReaderOptions reader, StartBatchesFn start, std::uint64_t skipped = 0, WorkerPlace part = {});
  // What is wrong with the data is told with the layer's name and place.
  template <typename Action>
  auto or_fail(const Action& action) -> decltype(action());

 private:
  void seek(std::uint64_t first_record, std::uint64_t stride);

  proto::Message settings_;
  std::int64_t records_ = 0;
  std::size_t batches_ahead_ = 0;
  RecordReaderOptions reader_;
  StartBatchesFn start_;
  std::uint64_t skipped_ = 0;
  WorkerPlace part_;

  std::uint64_t next_record_ = 0;  // what the thread will yield next
  std::uint64_t stride_ = 0;       // 0: it does not run
  std::optional<Prefetcher<Batch>> batches_;
};

template <typename Action>
auto BatchLayer::or_fail(const Action& action) -> decltype(action()) {
  try {
    return action();
  } catch (const ConfigError& error) {
    fail(base::concat("cannot read its records: ", error.what()));
  } catch (const SystemError& error) {
    throw SystemError(
        base::concat(message().position().text(), ": layer \"", name(), "\" cannot read its records: ", error.what()));
  }
}

// Data and ImageData: images and labels, transformed.
class RecordLayer : public BatchLayer {
 public:
  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override;

 protected:
  // `settings` also has rand_skip and shared_file_system.
  RecordLayer(const LayerConfig& config, std::string_view settings);

  const Transform& transform() const { return *transform_; }
  // The last thing in the constructor of a type: reads the first record, whose extents all others must have.
  void open(RecordReaderOptions reader);

 private:
  class BatchMaker;

  std::filesystem::path own_part(const std::filesystem::path& source) const;

  std::shared_ptr<const Transform> transform_;
  Shape image_;                // [channels, height, width]
  std::uint64_t skipped_ = 0;  // rand_skip's draw
};

}  // namespace poseidon::caffe
