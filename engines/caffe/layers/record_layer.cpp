#include "engines/caffe/layers/record_layer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engines/caffe/data/ordered_pool.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

std::string place_of(const std::filesystem::path& source, const Record& record) {
  return base::concat(source.string(), ": record ", record.index, " (key ", record.key, ")");
}

// Images with fewer numbers are made by the thread that reads them: to hand them to others would cost more than it saves.
constexpr std::int64_t kSharedElementsMin = 1 << 14;

}  // namespace

// Makes consecutive batches of one reader. Moves to the prefetching thread.
class RecordLayer::BatchMaker {
 public:
  struct Settings {
    std::shared_ptr<const Transform> transform;
    std::filesystem::path source;
    bool is_list = false;
    WorkerPlace part;
    Shape image;  // [channels, height, width]
    std::int64_t records = 0;
    at::ScalarType dtype = at::kFloat;
  };
  BatchMaker(RecordReader reader, Settings settings) : reader_(std::move(reader)), settings_(std::move(settings)) {
    if (elements_of(settings_.image) < kSharedElementsMin) return;
    const std::size_t threads = data_threads();
    pool_.emplace(
        typename Pool::Size{threads, kAheadPerThread * threads}, [this] { return take(); },
        [this](Task task) {
          fill(task);
          return task.batch;
        });
  }

  Batch make() {
    std::shared_ptr<const Memory> batch;
    for (std::int64_t i = 0; i < settings_.records; ++i) {
      if (pool_) {
        batch = pool_->next();
      } else {
        const Task task = take();
        fill(task);
        batch = task.batch;
      }
    }
    return {batch->images.detach(), batch->labels.detach()};
  }

 private:
  // Of one batch.
  struct Memory {
    at::Tensor images;  // [records, channels, height, width]
    at::Tensor labels;  // [records]
  };
  // A record, and where it goes.
  struct Task {
    std::shared_ptr<const Memory> batch;
    std::int64_t place = 0;
    Record record;
  };
  using Pool = OrderedPool<Task, std::shared_ptr<const Memory>>;

  Task take() {
    if (taken_ == 0) next_batch_ = free_batch();
    Task task{next_batch_, taken_, reader_.next()};
    taken_ = (taken_ + 1) % settings_.records;
    return task;
  }

  // One that nobody looks at any more, if there is one: fresh memory comes page by page from the kernel, which takes a third as
  // long as decoding. Those handed out are other tensors with the same storage.
  std::shared_ptr<const Memory> free_batch() {
    for (const std::shared_ptr<const Memory>& batch : batches_) {
      const bool is_free = batch.use_count() == 1 && batch->images.storage().use_count() == 1 && batch->labels.storage().use_count() == 1;
      if (is_free) return batch;
    }
    Shape shape = {settings_.records};
    shape.insert(shape.end(), settings_.image.begin(), settings_.image.end());
    return batches_.emplace_back(std::make_shared<const Memory>(
        Memory{.images = at::empty(shape, settings_.dtype), .labels = at::empty({settings_.records}, settings_.dtype)}));
  }

  void fill(const Task& task) const { settings_.dtype == at::kDouble ? fill_as<double>(task) : fill_as<float>(task); }

  template <typename Scalar>
  void fill_as(const Task& task) const {
    const Record& record = task.record;
    const std::string place = place_of(settings_.source, record);
    const proto::Datum datum = proto::parse_datum(record.value, place);
    if (const Shape shape = settings_.transform->shape_for(datum, place); shape != settings_.image) {
      throw ConfigError(base::concat(place, ": the image becomes ", base::readable_shape(shape),
                                     ", and the first one ", base::readable_shape(settings_.image), "; give crop_size, ",
                                     settings_.is_list ? "or new_height and new_width" : "or images of one size"));
    }
    const auto image_size = static_cast<std::size_t>(elements_of(settings_.image));
    const std::span images(task.batch->images.mutable_data_ptr<Scalar>(), static_cast<std::size_t>(task.batch->images.numel()));
    try {
      // The counter of records never comes back to a number, so it stands for the iteration too.
      settings_.transform->apply(datum, /*iteration=*/0, record.index * settings_.part.workers + settings_.part.rank,
                                 images.subspan(static_cast<std::size_t>(task.place) * image_size, image_size));
    } catch (const ConfigError& error) {
      throw ConfigError(base::concat(place, ": ", error.what()));
    }
    task.batch->labels.mutable_data_ptr<Scalar>()[task.place] = static_cast<Scalar>(datum.label);
  }

  RecordReader reader_;  // by one thread at a time: take()
  const Settings settings_;
  std::vector<std::shared_ptr<const Memory>> batches_;
  std::shared_ptr<const Memory> next_batch_;  // whose records are being taken
  std::int64_t taken_ = 0;                    // of them
  std::optional<Pool> pool_;                  // last: its threads use all the others
};

BatchLayer::BatchLayer(const LayerConfig& config, std::string_view settings, const BlobCounts& counts)
    : Layer(config, counts), settings_(message().message(settings)) {
  records_ = settings_.integer("batch_size");
  if (records_ < 1) fail_at(settings_.position("batch_size"), "needs batch_size, at least 1");
  // Caffe takes it from data_param for all types of layer that read ahead.
  const proto::Message data = message().message("data_param");
  batches_ahead_ = static_cast<std::size_t>(data.integer("prefetch"));
  if (batches_ahead_ < 1) fail_at(data.position("prefetch"), "has prefetch 0; it must be at least 1");
}

BatchLayer::StartBatchesFn BatchLayer::one_by_one(std::function<Batch(RecordReader& reader)> make) {
  return [make = std::move(make)](RecordReader reader) -> NextBatchFn {
    return [make, kept = std::make_shared<RecordReader>(std::move(reader))] { return make(*kept); };
  };
}

void BatchLayer::read_from(RecordReaderOptions reader, StartBatchesFn start, std::uint64_t skipped, WorkerPlace part) {
  reader_ = std::move(reader);
  start_ = std::move(start);
  skipped_ = skipped;
  part_ = part;
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
    const std::uint64_t of_workers_before = std::min(first_record, part_.rank * records_per_batch());
    range.first = (first_record - of_workers_before) / part_.workers + skipped_;
    range.take = records_per_batch();
    range.skip = std::max(stride / part_.workers, range.take) - range.take;
    batches_.emplace(batches_ahead_, start_(RecordReader(std::move(range))));
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
  WorkerPlace part;
  if (!settings().flag("shared_file_system")) {
    part = worker();
    reader.source = own_part(reader.source);
  }
  or_fail([&] {
    RecordReaderOptions first = reader;
    first.first = skipped_;
    RecordReader records(std::move(first));
    const std::string place = place_of(reader.source, records.peek());
    image_ = transform_->shape_for(proto::parse_datum(records.peek().value, place), place);
  });
  const BatchMaker::Settings batches{.transform = transform_,
                                     .source = reader.source,
                                     .is_list = reader.images.has_value(),
                                     .part = part,
                                     .image = image_,
                                     .records = static_cast<std::int64_t>(records_per_batch()),
                                     .dtype = dtype()};
  const StartBatchesFn start = [batches](RecordReader from) -> NextBatchFn {
    return [maker = std::make_shared<BatchMaker>(std::move(from), batches)] { return maker->make(); };
  };
  read_from(std::move(reader), start, skipped_, part);
}

// By the names that partition-data gives.
std::filesystem::path RecordLayer::own_part(const std::filesystem::path& source) const {
  std::string whole = source.string();
  while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
  const std::filesystem::path part = base::concat(whole, "_", worker().rank);
  if (!std::filesystem::exists(part)) {
    fail_at(settings().position("shared_file_system"),
            base::concat("has shared_file_system: false, so worker ", worker().rank, " reads its own part of the data, ",
                         part.string(), ", which is not there; `poseidon partition-data --turn ", whole, " ",
                         worker().workers, "` makes the parts of a data base"));
  }
  return part;
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
