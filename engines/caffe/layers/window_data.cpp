// WindowData: windows of images, objects and background in a fixed share, warped to one size: R-CNN's data.
//
// Each record is a draw of a window with replacement. Of a global batch of n records the last int(n fg_fraction) show
// objects, those before them background, as in Caffe; what is drawn depends on the record's number alone. As there, the
// scale is that of window_data_param, and what lies beyond the image is 0 whatever the mean.
#include <ATen/ops/zeros.h>

#include "engines/caffe/data/window_record.h"
#include "engines/caffe/layers/record_layer.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/blob_file.h"

namespace poseidon::caffe {
namespace {

constexpr std::int64_t kChannels = 3;
// JPEG's own limit of rows and columns.
constexpr std::int64_t kSideMax = 65'500;

// What is subtracted from a pixel.
struct Mean {
  std::vector<double> image;  // [3, height, width], or empty
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<double> values;  // none, or one for each channel
};

struct WindowBatches {
  Mean mean;
  double scale = 1;
  std::filesystem::path source;
  std::int64_t records = 0;
  std::int64_t side = 0;
  at::ScalarType dtype = at::kFloat;

  std::vector<at::Tensor> make(RecordReader& reader) const {
    const at::Tensor data = at::zeros({records, kChannels, side, side}, dtype);
    const at::Tensor labels = at::zeros({records}, dtype);
    if (dtype == at::kDouble) {
      fill<double>(reader, data, labels);
    } else {
      fill<float>(reader, data, labels);
    }
    return {data, labels};
  }

  template <typename Scalar>
  void fill(RecordReader& reader, const at::Tensor& data, const at::Tensor& labels) const {
    for (std::int64_t i = 0; i < records; ++i) {
      const Record record = reader.next();
      const WindowRecord window = parse_window(record.value, base::concat(source.string(), ": ", record.key));
      put<Scalar>(window, data.mutable_data_ptr<Scalar>() + i * kChannels * side * side);
      labels.mutable_data_ptr<Scalar>()[i] = static_cast<Scalar>(window.pixels.label);
    }
  }

  template <typename Scalar>
  void put(const WindowRecord& window, Scalar* into) const {
    const proto::Datum& pixels = window.pixels;
    if (pixels.channels != kChannels || window.left < 0 || window.top < 0 || window.left + pixels.width > side ||
        window.top + pixels.height > side) {
      throw ConfigError(base::concat(source.string(), ": a window came that does not fit; build poseidon-data anew"));
    }
    const auto* pixel = reinterpret_cast<const unsigned char*>(pixels.bytes.data());
    for (std::int64_t c = 0; c < kChannels; ++c) {
      for (std::int64_t y = window.top; y < window.top + pixels.height; ++y) {
        for (std::int64_t x = window.left; x < window.left + pixels.width; ++x) {
          into[(c * side + y) * side + x] =
              (static_cast<Scalar>(*pixel++) - static_cast<Scalar>(mean_at(c, y, x))) * static_cast<Scalar>(scale);
        }
      }
    }
  }

  // The middle of the mean image lies on the middle of the square.
  double mean_at(std::int64_t c, std::int64_t y, std::int64_t x) const {
    if (!mean.values.empty()) return mean.values[static_cast<std::size_t>(c)];
    if (mean.image.empty()) return 0;
    const std::int64_t off = (mean.width - side) / 2;
    return mean.image[static_cast<std::size_t>((c * mean.height + y + off) * mean.width + x + off)];
  }
};

class WindowData final : public BatchLayer {
 public:
  explicit WindowData(const LayerConfig& config)
      : BatchLayer(config, "window_data_param", {.bottoms_min = 0, .bottoms_max = 0, .tops_min = 2, .tops_max = 2}),
        transform_(message().message("transform_param")),
        side_(holder_of("crop_size").integer("crop_size")) {
    if (settings().text("source").empty()) {
      fail_at(settings().position("source"), "needs a window file: window_data_param { source: \"FILE\" }");
    }
    if (side_ < 1 || side_ > kSideMax) {
      fail_at(holder_of("crop_size").position("crop_size"),
              "needs crop_size, from 1 to 65500: transform_param { crop_size: 227 }");
    }
    if (transform_.has("scale")) {
      fail_at(transform_.position("scale"),
              "has a scale in transform_param, which Caffe's WindowData passes over; write it in window_data_param");
    }
    RecordReaderOptions reader{.source = settings().text("source"), .windows = windows(), .program = {}};
    reader.take = records_per_batch();  // of which some must be objects, and some background
    or_fail([&] { const RecordReader first(reader); });
    const WindowBatches batches{.mean = mean(),
                                .scale = settings().real("scale"),
                                .source = reader.source,
                                .records = static_cast<std::int64_t>(records_per_batch()),
                                .side = side_,
                                .dtype = dtype()};
    read_from(std::move(reader), one_by_one([batches](RecordReader& from) { return batches.make(from); }));
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override {
    const auto records = static_cast<std::int64_t>(records_per_batch());
    return {{records, kChannels, side_, side_}, {records}};
  }

 private:
  // Older prototxts have crop_size, mirror and mean_file beside the layer's own settings.
  const proto::Message& holder_of(std::string_view field) const {
    if (!settings().has(field)) return transform_;
    if (transform_.has(field)) {
      fail_at(settings().position(field),
              base::concat("has ", field,
                           " in window_data_param, and in transform_param too; keep that one and remove "
                           "this"));
    }
    return settings();
  }

  WindowFiles windows() const {
    const std::string mode = settings().text("crop_mode");
    if (mode != "warp" && mode != "square") {
      fail_at(settings().position("crop_mode"),
              base::concat("has crop_mode \"", mode, "\"; there are warp and square"));
    }
    const std::int64_t pad = settings().integer("context_pad");
    if (2 * pad >= side_) {
      fail_at(settings().position("context_pad"),
              base::concat("has context_pad ", pad, " on both sides, which leaves nothing of crop_size ", side_));
    }
    const double share = settings().real("fg_fraction");
    if (!(share >= 0 && share <= 1)) {
      fail_at(settings().position("fg_fraction"), base::concat("has fg_fraction ", share, "; it is from 0 to 1"));
    }
    return {.prefix = settings().text("root_folder"),
            .crop = {.side = static_cast<int>(side_),
                     .context_pad = static_cast<int>(pad),
                     .square = mode == "square",
                     .in_double = dtype() == at::kDouble},
            .mirror = holder_of("mirror").flag("mirror"),
            .cache = settings().flag("cache_images"),
            .foreground_threshold = static_cast<float>(settings().real("fg_threshold")),
            .background_threshold = static_cast<float>(settings().real("bg_threshold")),
            .foreground_share = static_cast<float>(share),
            .seed = seed(),
            .purpose = name() + ".window"};
  }

  Mean mean() const {
    const proto::Message& holder = holder_of("mean_file");
    Mean mean{.image = {}, .values = transform_.reals("mean_value")};
    if (!mean.values.empty() && holder.has("mean_file")) {
      fail_at(holder.position("mean_file"), "has mean_file and mean_value, which exclude each other");
    }
    if (mean.values.size() == 1) mean.values.resize(kChannels, mean.values[0]);
    if (!mean.values.empty() && mean.values.size() != kChannels) {
      fail_at(transform_.position("mean_value"),
              "has another number of mean_value than one, or one for each of 3 channels");
    }
    if (!holder.has("mean_file")) return mean;
    const std::string file = holder.text("mean_file");
    proto::Blob blob;
    try {
      blob = proto::read_blob(file);
    } catch (const ConfigError& error) {
      fail_at(holder.position("mean_file"), base::concat("cannot read its mean_file: ", error.what()));
    }
    if (blob.shape.size() == 4 && blob.shape.front() == 1) blob.shape.erase(blob.shape.begin());
    // Caffe reckons where the square lies by the width alone.
    const bool fits = blob.shape.size() == 3 && blob.shape[0] == kChannels && blob.shape[2] >= side_ &&
                      blob.shape[1] >= (blob.shape[2] - side_) / 2 + side_;
    if (!fits) {
      fail_at(holder.position("mean_file"),
              base::concat("has ", file, " for a mean, which is ", base::readable_shape(blob.shape),
                           "; it must be [1, 3, height, width], square, and at least as large as crop_size ", side_));
    }
    mean.height = blob.shape[1];
    mean.width = blob.shape[2];
    mean.image = std::visit([](const auto& numbers) { return std::vector<double>(numbers.begin(), numbers.end()); },
                            blob.values);
    return mean;
  }

  proto::Message transform_;
  std::int64_t side_;
};

}  // namespace

std::unique_ptr<Layer> make_window_data(const LayerConfig& config) {
  return std::make_unique<WindowData>(config);
}

}  // namespace poseidon::caffe
