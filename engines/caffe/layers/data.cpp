// Data: images and labels from a data base, made ready by a thread that is some batches ahead.
//
// The records of a batch are those that the forward pass asks for: consecutive ones from `first_record` on, counted
// over the whole training by all workers and all passes through the data base. The thread goes on as the pass says that
// it will
// (`record_stride`); when a pass asks for other records, it starts anew there.
#include <ATen/ops/empty.h>

#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/text.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/transform.h"
#include "engines/caffe/layers/prefetcher.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

struct Batch {
  at::Tensor images;  // [records, channels, height, width]
  at::Tensor labels;  // [records]
};

struct BatchShape {
  std::int64_t records = 0;
  Shape image;  // [channels, height, width]
};

std::string place_of(const std::string& source, const Record& record) {
  return base::concat(source, ": record ", record.index, " (key ", record.key, ")");
}

// Makes consecutive batches of one reader. Moves to the prefetching thread.
class BatchMaker {
 public:
  BatchMaker(RecordReader reader, const Transform& transform, std::string source, BatchShape shape,
             at::ScalarType dtype)
      : reader_(std::move(reader)),
        transform_(transform),
        source_(std::move(source)),
        shape_(std::move(shape)),
        dtype_(dtype) {}

  Batch make() {
    Shape images = {shape_.records};
    images.insert(images.end(), shape_.image.begin(), shape_.image.end());
    const Batch batch{.images = at::empty(images, dtype_), .labels = at::empty({shape_.records}, dtype_)};
    if (dtype_ == at::kDouble) {
      fill<double>(batch);
    } else {
      fill<float>(batch);
    }
    return batch;
  }

 private:
  template <typename Scalar>
  void fill(const Batch& batch) {
    const auto image_size = static_cast<std::size_t>(elements_of(shape_.image));
    const std::span images(batch.images.mutable_data_ptr<Scalar>(), static_cast<std::size_t>(batch.images.numel()));
    Scalar* const labels = batch.labels.mutable_data_ptr<Scalar>();
    for (std::int64_t i = 0; i < shape_.records; ++i) {
      const Record record = reader_.next();
      const std::string place = place_of(source_, record);
      const proto::Datum datum = proto::parse_datum(record.value, place);
      if (const Shape shape = transform_.shape_for(datum, place); shape != shape_.image) {
        throw ConfigError(base::concat(place, ": the image becomes ", base::readable_shape(shape),
                                       ", and the first one ", base::readable_shape(shape_.image),
                                       "; give crop_size, or images of one size"));
      }
      // The counter of records never comes back to a number, so it stands for the iteration too.
      transform_.apply(datum, /*iteration=*/0, record.index,
                       images.subspan(static_cast<std::size_t>(i) * image_size, image_size));
      labels[i] = static_cast<Scalar>(datum.label);
    }
  }

  RecordReader reader_;
  const Transform& transform_;  // outlives the thread
  std::string source_;
  BatchShape shape_;
  at::ScalarType dtype_;
};

class Data final : public Layer {
 public:
  explicit Data(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 0, .tops_max = 2}),
        settings_(message().message("data_param")),
        source_(settings_.text("source")),
        transform_(message().message("transform_param"),
                   {.training = phase() == Phase::kTrain, .seed = seed(), .layer = name()}) {
    check_settings();
    shape_.records = settings_.integer("batch_size");
    if (const std::int64_t most = settings_.integer("rand_skip"); most > 0) {
      const base::RandomStream stream(seed(), name() + ".rand_skip");
      skipped_ = stream.words(0, 0, 0)[0] % static_cast<std::uint32_t>(most);
    }
    read_shape();
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override {
    Shape images = {shape_.records};
    images.insert(images.end(), shape_.image.begin(), shape_.image.end());
    std::vector<Shape> tops_of_both = {images, {shape_.records}};
    tops_of_both.resize(tops().size());
    return tops_of_both;
  }

  std::size_t records_per_batch() const override { return static_cast<std::size_t>(shape_.records); }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>&) override {
    const std::uint64_t stride = std::max<std::uint64_t>(context.record_stride, records_per_batch());
    if (next_record_ != context.first_record || stride_ != stride) seek(context.first_record, stride);
    next_record_ = context.first_record + stride;
    const Batch batch = or_fail([&] { return batches_->next(); });
    if (tops().size() == 1) return {batch.images};
    return {batch.images, batch.labels};
  }

 private:
  void check_settings() {
    if (source_.empty()) fail_at(settings_.position("source"), "needs a data base: data_param { source: \"FOLDER\" }");
    if (settings_.integer("batch_size") < 1) fail_at(settings_.position("batch_size"), "needs batch_size, at least 1");
    if (settings_.integer("prefetch") < 1)
      fail_at(settings_.position("prefetch"), "has prefetch 0; it must be at least 1");
    if (settings_.choice("backend") != "LMDB") {
      fail_at(settings_.position("backend"),
              "has backend LEVELDB, which is what it means where none is given, and which is "
              "not supported yet; write backend: LMDB");
    }
    for (const char* const moved : {"scale", "mean_file", "crop_size", "mirror"}) {
      if (!settings_.has(moved)) continue;
      fail_at(settings_.position(moved), base::concat("has ", moved, " in data_param; write it in transform_param"));
    }
    if (settings_.has("force_encoded_color")) {
      fail_at(settings_.position("force_encoded_color"),
              "has force_encoded_color in data_param; write force_color in transform_param");
    }
  }

  // From the first record: the others must be alike.
  void read_shape() {
    or_fail([&] {
      RecordReader reader({.database = source_, .first = skipped_, .color = transform_.color(), .program = {}});
      const std::string place = place_of(source_, reader.peek());
      shape_.image = transform_.shape_for(proto::parse_datum(reader.peek().value, place), place);
    });
  }

  void seek(std::uint64_t first_record, std::uint64_t stride) {
    batches_.reset();
    stride_ = stride;
    or_fail([&] {
      RecordReader reader({.database = source_,
                           .first = first_record + skipped_,
                           .take = records_per_batch(),
                           .skip = stride - records_per_batch(),
                           .color = transform_.color(),
                           .program = {}});
      const auto maker = std::make_shared<BatchMaker>(std::move(reader), transform_, source_, shape_, dtype());
      batches_.emplace(static_cast<std::size_t>(settings_.integer("prefetch")), [maker] { return maker->make(); });
    });
  }

  // What is wrong with the data base is told with the layer's name and place.
  template <typename Action>
  auto or_fail(const Action& action) -> decltype(action()) {
    try {
      return action();
    } catch (const ConfigError& error) {
      fail(base::concat("cannot read its records: ", error.what()));
    } catch (const SystemError& error) {
      throw SystemError(
          base::concat(message().position().text(), ": layer \"", name(), "\" cannot read its records: ", error.what()));
    }
  }

  proto::Message settings_;
  std::string source_;
  Transform transform_;
  BatchShape shape_;
  std::uint64_t skipped_ = 0;  // rand_skip's draw

  std::uint64_t next_record_ = 0;  // what the thread will yield next
  std::uint64_t stride_ = 0;       // 0: it does not run
  std::optional<Prefetcher<Batch>> batches_;
};

}  // namespace

std::unique_ptr<Layer> make_data(const LayerConfig& config) {
  return std::make_unique<Data>(config);
}

}  // namespace poseidon::caffe
