#include "engines/caffe/data/transform.h"

#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/blob_file.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// A mean image may be written with the axis of records in front: [1, C, H, W].
std::vector<std::int64_t> image_shape(const proto::Blob& mean, const std::string& file) {
  std::vector<std::int64_t> shape = mean.shape;
  if (shape.size() == 4 && shape.front() == 1) shape.erase(shape.begin());
  if (shape.size() != 3) {
    throw ConfigError(concat(file, ": has the shape ", base::readable_shape(mean.shape),
                             "; a mean image has [1, channels, height, width]"));
  }
  return shape;
}

// Uniform in 0 to count - 1. The bias of the multiplication is below count / 2^32.
std::size_t draw(std::uint32_t word, std::size_t count) {
  return static_cast<std::size_t>((std::uint64_t{word} * count) >> 32);
}

// Of the two places where a setting may stand, the one where it does.
const proto::Message& holder_of(std::string_view field, const proto::Message& settings,
                                const std::optional<proto::Message>& older) {
  if (!older || !older->has(field)) return settings;
  if (!settings.has(field)) return *older;
  throw ConfigError(concat(older->position(field).text(), ": ", field,
                           " stands in transform_param too; keep that one and remove this"));
}

ImageColor color_of(const proto::Message& settings) {
  const bool color = settings.flag("force_color");
  const bool gray = settings.flag("force_gray");
  if (color && gray)
    throw ConfigError(
        concat(settings.position("force_gray").text(), ": force_color and force_gray exclude each other"));
  return color ? ImageColor::kColor : gray ? ImageColor::kGray : ImageColor::kAsStored;
}

}  // namespace

Transform::Transform(const proto::Message& settings, Options options)
    : options_(std::move(options)),
      random_(options_.seed, options_.layer),
      color_(color_of(settings)),
      scale_(holder_of("scale", settings, options_.older).real("scale")),
      mirror_(holder_of("mirror", settings, options_.older).flag("mirror")),
      crop_(static_cast<std::size_t>(holder_of("crop_size", settings, options_.older).integer("crop_size"))),
      mean_values_(settings.reals("mean_value")) {
  const proto::Message& mean_holder = holder_of("mean_file", settings, options_.older);
  if (!mean_holder.has("mean_file")) return;
  mean_file_ = mean_holder.text("mean_file");
  if (!mean_values_.empty()) {
    throw ConfigError(
        concat(mean_holder.position("mean_file").text(), ": mean_file and mean_value exclude each other"));
  }
  proto::Blob mean;
  try {
    mean = proto::read_blob(mean_file_);
  } catch (const ConfigError& error) {
    throw ConfigError(concat(mean_holder.position("mean_file").text(), ": mean_file: ", error.what()));
  }
  mean_shape_ = image_shape(mean, mean_file_);
  mean_image_ =
      std::visit([](const auto& numbers) { return std::vector<double>(numbers.begin(), numbers.end()); }, mean.values);
}

std::vector<std::int64_t> Transform::shape_for(const proto::Datum& datum, std::string_view where) const {
  const std::vector<std::int64_t> image = {datum.channels, datum.height, datum.width};
  const auto crop = static_cast<std::int64_t>(crop_);
  if (crop > datum.height || crop > datum.width) {
    throw ConfigError(concat(where, ": the image ", base::readable_shape(image), " is smaller than crop_size ", crop_,
                             " of layer \"", options_.layer, "\""));
  }
  if (!mean_shape_.empty() && mean_shape_ != image) {
    throw ConfigError(concat(where, ": the image ", base::readable_shape(image), " has another shape than ", mean_file_,
                             ", which has ", base::readable_shape(mean_shape_), " (layer \"", options_.layer, "\")"));
  }
  if (mean_values_.size() > 1 && static_cast<std::int64_t>(mean_values_.size()) != image[0]) {
    throw ConfigError(concat(where, ": layer \"", options_.layer, "\" has ", mean_values_.size(),
                             " times mean_value for an image of ", image[0],
                             " channels; give one, or one per channel"));
  }
  return crop_ == 0 ? image : std::vector<std::int64_t>{image[0], crop, crop};
}

Transform::Window Transform::window_for(const proto::Datum& datum, std::uint64_t iteration,
                                        std::uint64_t record) const {
  const base::PhiloxCounter words = random_.words(iteration, record, 0);
  Window window;
  window.height = static_cast<std::size_t>(datum.height);
  window.width = static_cast<std::size_t>(datum.width);
  window.mirrored = mirror_ && draw(words[0], 2) == 1;
  if (crop_ == 0) return window;
  const std::size_t rows_over = window.height - crop_;
  const std::size_t columns_over = window.width - crop_;
  window.top = options_.training ? draw(words[1], rows_over + 1) : rows_over / 2;
  window.left = options_.training ? draw(words[2], columns_over + 1) : columns_over / 2;
  window.height = window.width = crop_;
  return window;
}

template <typename T>
void Transform::apply_as(const proto::Datum& datum, const Window& window, std::span<T> out) const {
  const auto rows = static_cast<std::size_t>(datum.height);
  const auto columns = static_cast<std::size_t>(datum.width);
  const auto channels = static_cast<std::size_t>(datum.channels);
  const auto* bytes = reinterpret_cast<const unsigned char*>(datum.bytes.data());
  const auto scale = static_cast<T>(scale_);

  // One row: `pixel(x)` gives the image's number there, `mean(x)` what to subtract.
  const auto fill = [&](T* to, auto pixel, auto mean) {
    if (window.mirrored) {
      for (std::size_t x = 0; x < window.width; ++x) to[window.width - 1 - x] = (pixel(x) - mean(x)) * scale;
    } else {
      for (std::size_t x = 0; x < window.width; ++x) to[x] = (pixel(x) - mean(x)) * scale;
    }
  };
  for (std::size_t channel = 0; channel < channels; ++channel) {
    const T mean_value =
        mean_values_.empty() ? T{0} : static_cast<T>(mean_values_[mean_values_.size() == 1 ? 0 : channel]);
    for (std::size_t row = 0; row < window.height; ++row) {
      T* to = out.data() + (channel * window.height + row) * window.width;
      const std::size_t from = (channel * rows + window.top + row) * columns + window.left;
      const auto byte_at = [&](std::size_t x) { return static_cast<T>(bytes[from + x]); };
      const auto float_at = [&](std::size_t x) { return static_cast<T>(datum.floats[from + x]); };
      const auto mean_image = [&](std::size_t x) { return static_cast<T>(mean_image_[from + x]); };
      const auto mean_constant = [&](std::size_t) { return mean_value; };
      if (datum.floats.empty()) {
        mean_image_.empty() ? fill(to, byte_at, mean_constant) : fill(to, byte_at, mean_image);
      } else {
        mean_image_.empty() ? fill(to, float_at, mean_constant) : fill(to, float_at, mean_image);
      }
    }
  }
}

namespace {

void require_fits(const proto::Datum& datum, std::size_t wanted, std::size_t given) {
  if (datum.encoded) throw std::logic_error("Transform::apply: the image is still encoded");
  if (wanted != given) throw std::logic_error(concat("Transform::apply: ", given, " numbers of room for ", wanted));
}

}  // namespace

void Transform::apply(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record,
                      std::span<float> out) const {
  const Window window = window_for(datum, iteration, record);
  require_fits(datum, static_cast<std::size_t>(datum.channels) * window.height * window.width, out.size());
  apply_as<float>(datum, window, out);
}

void Transform::apply(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record,
                      std::span<double> out) const {
  const Window window = window_for(datum, iteration, record);
  require_fits(datum, static_cast<std::size_t>(datum.channels) * window.height * window.width, out.size());
  apply_as<double>(datum, window, out);
}

}  // namespace poseidon::caffe
