#include "engines/caffe/layers/record_layer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <span>
#include <utility>

#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

std::string place_of(const std::filesystem::path& source, const Record& record) {
  return base::concat(source.string(), ": record ", record.index, " (key ", record.key, ")");
}

// Makes batches of images and labels.
struct ImageBatches {
  std::shared_ptr<const Transform> transform;
  std::filesystem::path source;
  bool is_list = false;
  Shape image;  // [channels, height, width]
  std::int64_t records = 0;
  at::ScalarType dtype = at::kFloat;

  std::vector<at::Tensor> make(RecordReader& reader) const {
    Shape shape = {records};
    shape.insert(shape.end(), image.begin(), image.end());
    const at::Tensor images = at::empty(shape, dtype);
    const at::Tensor labels = at::empty({records}, dtype);
    if (dtype == at::kDouble) {
      fill<double>(reader, images, labels);
    } else {
      fill<float>(reader, images, labels);
    }
    return {images, labels};
  }

  template <typename Scalar>
  void fill(RecordReader& reader, const at::Tensor& images, const at::Tensor& labels) const {
    const auto image_size = static_cast<std::size_t>(elements_of(image));
    const std::span pixels(images.mutable_data_ptr<Scalar>(), static_cast<std::size_t>(images.numel()));
    Scalar* const label = labels.mutable_data_ptr<Scalar>();
    for (std::int64_t i = 0; i < records; ++i) {
      const Record record = reader.next();
      const std::string place = place_of(source, record);
      const proto::Datum datum = proto::parse_datum(record.value, place);
      if (const Shape shape = transform->shape_for(datum, place); shape != image) {
        throw ConfigError(base::concat(place, ": the image becomes ", base::readable_shape(shape),
                                       ", and the first one ", base::readable_shape(image), "; give crop_size, ",
                                       is_list ? "or new_height and new_width" : "or images of one size"));
      }
      // The counter of records never comes back to a number, so it stands for the iteration too.
      transform->apply(datum, /*iteration=*/0, record.index,
                       pixels.subspan(static_cast<std::size_t>(i) * image_size, image_size));
      label[i] = static_cast<Scalar>(datum.label);
    }
  }
};

}  // namespace

BatchLayer::BatchLayer(const LayerConfig& config, std::string_view settings, const BlobCounts& counts)
    : Layer(config, counts), settings_(message().message(settings)) {
  records_ = settings_.integer("batch_size");
  if (records_ < 1) fail_at(settings_.position("batch_size"), "needs batch_size, at least 1");
  // Caffe takes it from data_param for all types of layer that read ahead.
  const proto::Message data = message().message("data_param");
  batches_ahead_ = static_cast<std::size_t>(data.integer("prefetch"));
  if (batches_ahead_ < 1) fail_at(data.position("prefetch"), "has prefetch 0; it must be at least 1");
}

void BatchLayer::read_from(RecordReaderOptions reader, MakeBatchFn make, std::uint64_t skipped) {
  reader_ = std::move(reader);
  make_ = std::move(make);
  skipped_ = skipped;
}

std::vector<at::Tensor> BatchLayer::forward(const ForwardContext& context, const std::vector<at::Tensor>&) {
  const std::uint64_t stride = std::max<std::uint64_t>(context.record_stride, records_per_batch());
  if (next_record_ != context.first_record || stride_ != stride) seek(context.first_record, stride);
  next_record_ = context.first_record + stride;
  Batch batch = or_fail([&] { return batches_->next(); });
  batch.resize(tops().size());
  return batch;
}

void BatchLayer::seek(std::uint64_t first_record, std::uint64_t stride) {
  batches_.reset();
  stride_ = stride;
  or_fail([&] {
    RecordReaderOptions range = reader_;
    range.first = first_record + skipped_;
    range.take = records_per_batch();
    range.skip = stride - records_per_batch();
    const auto reader = std::make_shared<RecordReader>(std::move(range));
    batches_.emplace(batches_ahead_, [reader, make = make_] { return make(*reader); });
  });
}

RecordLayer::RecordLayer(const LayerConfig& config, std::string_view settings_field)
    : BatchLayer(config, settings_field, {.bottoms_min = 0, .bottoms_max = 0, .tops_max = 2}),
      transform_(std::make_shared<Transform>(
          message().message("transform_param"),
          Transform::Options{
              .training = phase() == Phase::kTrain, .seed = seed(), .layer = name(), .older = settings()})) {
  if (const std::int64_t most = settings().integer("rand_skip"); most > 0) {
    const base::RandomStream stream(seed(), name() + ".rand_skip");
    skipped_ = stream.words(0, 0, 0)[0] % static_cast<std::uint32_t>(most);
  }
}

void RecordLayer::open(RecordReaderOptions reader) {
  or_fail([&] {
    RecordReaderOptions first = reader;
    first.first = skipped_;
    RecordReader records(std::move(first));
    const std::string place = place_of(reader.source, records.peek());
    image_ = transform_->shape_for(proto::parse_datum(records.peek().value, place), place);
  });
  const ImageBatches batches{.transform = transform_,
                             .source = reader.source,
                             .is_list = reader.images.has_value(),
                             .image = image_,
                             .records = static_cast<std::int64_t>(records_per_batch()),
                             .dtype = dtype()};
  read_from(
      std::move(reader), [batches](RecordReader& from) { return batches.make(from); }, skipped_);
}

std::vector<Shape> RecordLayer::top_shapes(const std::vector<Shape>&) const {
  const auto records = static_cast<std::int64_t>(records_per_batch());
  Shape images = {records};
  images.insert(images.end(), image_.begin(), image_.end());
  std::vector<Shape> tops_of_both = {images, {records}};
  tops_of_both.resize(tops().size());
  return tops_of_both;
}

}  // namespace poseidon::caffe
