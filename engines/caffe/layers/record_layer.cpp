#include "engines/caffe/layers/record_layer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/ordered_pool.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"
#include "engines/caffe/proto/system_error.h"

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
  BatchMaker(RecordReader reader, const RecordLayer& layer)
      : reader_(std::move(reader)),
        transform_(layer.transform_),
        source_(layer.reader_.source),
        is_list_(layer.reader_.images.has_value()),
        part_(layer.part_),
        shape_(layer.batch_),
        images_shape_(layer.images_shape()),
        dtype_(layer.dtype()) {
    if (elements_of(shape_.image) < kSharedElementsMin) return;
    const std::size_t threads = data_threads();
    pool_.emplace(
        typename Pool::Size{threads, kAheadPerThread * threads}, [this] { return take(); },
        [this](Task task) {
          fill(task);
          return task.batch;
        });
  }

  Batch make() {
    std::shared_ptr<const Batch> batch;
    for (std::int64_t i = 0; i < shape_.records; ++i) {
      if (pool_) {
        batch = pool_->next();
      } else {
        const Task task = take();
        fill(task);
        batch = task.batch;
      }
    }
    return {.images = batch->images.detach(), .labels = batch->labels.detach()};
  }

 private:
  // A record, and where it goes.
  struct Task {
    std::shared_ptr<const Batch> batch;
    std::int64_t place = 0;
    Record record;
  };
  using Pool = OrderedPool<Task, std::shared_ptr<const Batch>>;

  Task take() {
    if (taken_ == 0) next_batch_ = free_batch();
    Task task{next_batch_, taken_, reader_.next()};
    taken_ = (taken_ + 1) % shape_.records;
    return task;
  }

  // One that nobody looks at any more, if there is one: fresh memory comes page by page from the kernel, which takes a third as
  // long as decoding. Those handed out are other tensors with the same storage.
  std::shared_ptr<const Batch> free_batch() {
    for (const std::shared_ptr<const Batch>& batch : batches_) {
      const bool is_free = batch.use_count() == 1 && batch->images.storage().use_count() == 1 && batch->labels.storage().use_count() == 1;
      if (is_free) return batch;
    }
    return batches_.emplace_back(std::make_shared<const Batch>(
        Batch{.images = at::empty(images_shape_, dtype_), .labels = at::empty({shape_.records}, dtype_)}));
  }

  void fill(const Task& task) const { dtype_ == at::kDouble ? fill_as<double>(task) : fill_as<float>(task); }

  template <typename Scalar>
  void fill_as(const Task& task) const {
    const Record& record = task.record;
    const std::string place = place_of(source_, record);
    const proto::Datum datum = proto::parse_datum(record.value, place);
    if (const Shape shape = transform_.shape_for(datum, place); shape != shape_.image) {
      throw ConfigError(base::concat(place, ": the image becomes ", base::readable_shape(shape),
                                     ", and the first one ", base::readable_shape(shape_.image), "; give crop_size, ",
                                     is_list_ ? "or new_height and new_width" : "or images of one size"));
    }
    const auto image_size = static_cast<std::size_t>(elements_of(shape_.image));
    const std::span images(task.batch->images.mutable_data_ptr<Scalar>(), static_cast<std::size_t>(task.batch->images.numel()));
    try {
      // The counter of records never comes back to a number, so it stands for the iteration too.
      transform_.apply(datum, /*iteration=*/0, record.index * part_.workers + part_.rank,
                       images.subspan(static_cast<std::size_t>(task.place) * image_size, image_size));
    } catch (const ConfigError& error) {
      throw ConfigError(base::concat(place, ": ", error.what()));
    }
    task.batch->labels.mutable_data_ptr<Scalar>()[task.place] = static_cast<Scalar>(datum.label);
  }

  RecordReader reader_;  // by one thread at a time: take()
  const Transform& transform_;  // outlives the threads
  std::filesystem::path source_;
  bool is_list_;
  WorkerPlace part_;
  BatchShape shape_;
  Shape images_shape_;
  at::ScalarType dtype_;
  std::vector<std::shared_ptr<const Batch>> batches_;
  std::shared_ptr<const Batch> next_batch_;  // whose records are being taken
  std::int64_t taken_ = 0;                   // of them
  std::optional<Pool> pool_;                 // last: its threads use all the others
};

RecordLayer::RecordLayer(const LayerConfig& config, std::string_view settings)
    : Layer(config, {.bottoms_min = 0, .bottoms_max = 0, .tops_max = 2}),
      settings_(message().message(settings)),
      transform_(message().message("transform_param"),
                 {.training = phase() == Phase::kTrain, .seed = seed(), .layer = name(), .older = settings_}) {
  batch_.records = settings_.integer("batch_size");
  if (batch_.records < 1) fail_at(settings_.position("batch_size"), "needs batch_size, at least 1");
  // Caffe takes it from data_param for all types of layer that read ahead.
  const proto::Message data = message().message("data_param");
  batches_ahead_ = static_cast<std::size_t>(data.integer("prefetch"));
  if (batches_ahead_ < 1) fail_at(data.position("prefetch"), "has prefetch 0; it must be at least 1");
  if (const std::int64_t most = settings_.integer("rand_skip"); most > 0) {
    const base::RandomStream stream(seed(), name() + ".rand_skip");
    skipped_ = stream.words(0, 0, 0)[0] % static_cast<std::uint32_t>(most);
  }
  if (!settings_.flag("shared_file_system")) part_ = worker();
}

void RecordLayer::open(RecordReaderOptions reader) {
  reader_ = std::move(reader);
  if (!settings_.flag("shared_file_system")) reader_.source = own_part(reader_.source);
  or_fail([&] {
    RecordReaderOptions first = reader_;
    first.first = skipped_;
    RecordReader records(std::move(first));
    const std::string place = place_of(reader_.source, records.peek());
    batch_.image = transform_.shape_for(proto::parse_datum(records.peek().value, place), place);
  });
}

std::vector<Shape> RecordLayer::top_shapes(const std::vector<Shape>&) const {
  std::vector<Shape> tops_of_both = {images_shape(), {batch_.records}};
  tops_of_both.resize(tops().size());
  return tops_of_both;
}

std::vector<at::Tensor> RecordLayer::forward(const ForwardContext& context, const std::vector<at::Tensor>&) {
  const std::uint64_t stride = std::max<std::uint64_t>(context.record_stride, records_per_batch());
  if (next_record_ != context.first_record || stride_ != stride) seek(context.first_record, stride);
  next_record_ = context.first_record + stride;
  const Batch batch = or_fail([&] { return batches_->next(); });
  if (tops().size() == 1) return {batch.images};
  return {batch.images, batch.labels};
}

void RecordLayer::seek(std::uint64_t first_record, std::uint64_t stride) {
  batches_.reset();
  stride_ = stride;
  or_fail([&] {
    RecordReaderOptions range = reader_;
    const std::uint64_t of_workers_before = std::min(first_record, part_.rank * records_per_batch());
    range.first = (first_record - of_workers_before) / part_.workers + skipped_;
    range.take = records_per_batch();
    range.skip = std::max(stride / part_.workers, range.take) - range.take;
    const auto maker = std::make_shared<BatchMaker>(RecordReader(std::move(range)), *this);
    batches_.emplace(batches_ahead_, [maker] { return maker->make(); });
  });
}

// By the names that partition-data gives.
std::filesystem::path RecordLayer::own_part(const std::filesystem::path& source) const {
  std::string whole = source.string();
  while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
  const std::filesystem::path part = base::concat(whole, "_", part_.rank);
  if (!std::filesystem::exists(part)) {
    fail_at(settings_.position("shared_file_system"),
            base::concat("has shared_file_system: false, so worker ", part_.rank, " reads its own part of the data, ",
                         part.string(), ", which is not there; `poseidon partition-data --turn ", whole, " ",
                         part_.workers, "` makes the parts of a data base"));
  }
  return part;
}

Shape RecordLayer::images_shape() const {
  Shape shape = {batch_.records};
  shape.insert(shape.end(), batch_.image.begin(), batch_.image.end());
  return shape;
}

template <typename Action>
auto RecordLayer::or_fail(const Action& action) -> decltype(action()) {
  try {
    return action();
  } catch (const ConfigError& error) {
    fail(base::concat("cannot read its records: ", error.what()));
  } catch (const SystemError& error) {
    throw SystemError(
        base::concat(message().position().text(), ": layer \"", name(), "\" cannot read its records: ", error.what()));
  }
}

}  // namespace poseidon::caffe
