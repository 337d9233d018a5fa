#include "engines/caffe/data/transform.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/blob_file.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr const char* kNoJpeg = "is an encoded image that the trainer cannot decode itself";

// It keeps its tables from one image to the next.
JpegDecoder& decoder_of_this_thread() {
  thread_local JpegDecoder decoder;
  return decoder;
}

// One channel of a row that has all channels of a pixel in a word.
struct ByteOfWords {
  const std::uint32_t* words;
  unsigned shift;
};

template <typename T>
void numbers_of(const unsigned char* from, T mean, T scale, std::size_t count, T* to) {
  for (std::size_t x = 0; x < count; ++x) to[x] = (static_cast<T>(from[x]) - mean) * scale;
}

template <typename T>
void numbers_of(const float* from, T mean, T scale, std::size_t count, T* to) {
  for (std::size_t x = 0; x < count; ++x) to[x] = (static_cast<T>(from[x]) - mean) * scale;
}

// The loop that takes longest by far, for processors with words twice as wide as well; the same operations, so the same bits.
// Signed, because processors turn only signed words into numbers quickly.
__attribute__((target_clones("avx2", "default"))) void numbers_of(const ByteOfWords& from, float mean, float scale, std::size_t count,
                                                                  float* to) {
  const std::uint32_t* const words = from.words;
  const unsigned shift = from.shift;
  for (std::size_t x = 0; x < count; ++x) {
    to[x] = (static_cast<float>(static_cast<std::int32_t>((words[x] >> shift) & 0xFFU)) - mean) * scale;
  }
}

void numbers_of(const ByteOfWords& from, double mean, double scale, std::size_t count, double* to) {
  for (std::size_t x = 0; x < count; ++x) {
    to[x] = (static_cast<double>(static_cast<std::int32_t>((from.words[x] >> from.shift) & 0xFFU)) - mean) * scale;
  }
}

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
  if (!datum.encoded) return shape_for(std::vector<std::int64_t>{datum.channels, datum.height, datum.width}, where);
  const std::optional<JpegHeader> header = decoder_of_this_thread().open(datum.bytes);
  if (!header) throw ConfigError(concat(where, ": ", kNoJpeg));
  return shape_for(extents_of(*header), where);
}

std::vector<std::int64_t> Transform::shape_for(const std::vector<std::int64_t>& image, std::string_view where) const {
  const auto crop = static_cast<std::int64_t>(crop_);
  if (crop > image[1] || crop > image[2]) {
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

std::vector<std::int64_t> Transform::extents_of(const JpegHeader& header) const {
  const int channels = color_ == ImageColor::kAsStored ? header.channels : color_ == ImageColor::kGray ? 1 : 3;
  return {channels, header.height, header.width};
}

Transform::Window Transform::window_for(std::int64_t height, std::int64_t width, std::uint64_t iteration,
                                        std::uint64_t record) const {
  const base::PhiloxCounter words = random_.words(iteration, record, 0);
  Window window;
  window.height = static_cast<std::size_t>(height);
  window.width = static_cast<std::size_t>(width);
  window.mirrored = mirror_ && draw(words[0], 2) == 1;
  if (crop_ == 0) return window;
  const std::size_t rows_over = window.height - crop_;
  const std::size_t columns_over = window.width - crop_;
  window.top = options_.training ? draw(words[1], rows_over + 1) : rows_over / 2;
  window.left = options_.training ? draw(words[2], columns_over + 1) : columns_over / 2;
  window.height = window.width = crop_;
  return window;
}

template <typename T, typename Source>
void Transform::write_row(const Window& window, std::size_t channel, std::size_t row, std::size_t from, const Source& source,
                          std::span<T> out) const {
  const std::size_t width = window.width;
  T* const to = out.data() + (channel * window.height + row) * width;
  const auto scale = static_cast<T>(scale_);
  if (mean_image_.empty()) {
    const double mean = mean_values_.empty() ? 0 : mean_values_[mean_values_.size() == 1 ? 0 : channel];
    numbers_of(source, static_cast<T>(mean), scale, width, to);
  } else {
    const double* const mean = mean_image_.data() + from;
    numbers_of(source, T{0}, T{1}, width, to);
    for (std::size_t x = 0; x < width; ++x) to[x] = (to[x] - static_cast<T>(mean[x])) * scale;
  }
  // Afterwards: a loop that writes backwards would stay scalar.
  if (window.mirrored) std::reverse(to, to + width);
}

template <typename T>
void Transform::apply_plain(const proto::Datum& datum, const Window& window, std::span<T> out) const {
  const auto rows = static_cast<std::size_t>(datum.height);
  const auto columns = static_cast<std::size_t>(datum.width);
  const auto* bytes = reinterpret_cast<const unsigned char*>(datum.bytes.data());
  const float* floats = datum.floats.data();
  for (std::size_t channel = 0; channel < static_cast<std::size_t>(datum.channels); ++channel) {
    for (std::size_t row = 0; row < window.height; ++row) {
      const std::size_t from = (channel * rows + window.top + row) * columns + window.left;
      if (datum.floats.empty()) {
        write_row(window, channel, row, from, bytes + from, out);
      } else {
        write_row(window, channel, row, from, floats + from, out);
      }
    }
  }
}

template <typename T>
void Transform::apply_jpeg(JpegDecoder& decoder, const std::vector<std::int64_t>& image, const Window& window,
                           std::span<T> out) const {
  const auto channels = static_cast<std::size_t>(image[0]);
  const auto rows = static_cast<std::size_t>(image[1]);
  const auto columns = static_cast<std::size_t>(image[2]);
  // A word for each pixel also where a byte would do: one way for both.
  std::vector<std::uint32_t> words(columns);
  const auto require = [](bool done) {
    if (!done) throw ConfigError("is a JPEG that is damaged, so that nothing can be read from it");
  };
  require(decoder.start(channels == 1 ? JpegPixels::kGray : JpegPixels::kBlueLowest));
  for (std::size_t y = 0; y < window.top + window.height; ++y) {
    auto* const bytes = reinterpret_cast<unsigned char*>(words.data());
    require(decoder.read(bytes));
    if (y < window.top) continue;
    const std::size_t row = y - window.top;
    for (std::size_t channel = 0; channel < channels; ++channel) {
      const std::size_t from = (channel * rows + y) * columns + window.left;
      if (channels == 1) {
        write_row(window, channel, row, from, bytes + window.left, out);
      } else {
        write_row(window, channel, row, from, ByteOfWords{words.data() + window.left, static_cast<unsigned>(8 * channel)}, out);
      }
    }
  }
}

template <typename T>
void Transform::apply_as(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record, std::span<T> out) const {
  JpegDecoder& decoder = decoder_of_this_thread();
  std::vector<std::int64_t> image = {datum.channels, datum.height, datum.width};
  if (datum.encoded) {
    const std::optional<JpegHeader> header = decoder.open(datum.bytes);
    if (!header) throw ConfigError(kNoJpeg);
    image = extents_of(*header);
  }
  const Window window = window_for(image[1], image[2], iteration, record);
  if (const std::size_t wanted = static_cast<std::size_t>(image[0]) * window.height * window.width; wanted != out.size()) {
    throw std::logic_error(concat("Transform::apply: ", out.size(), " numbers of room for ", wanted));
  }
  datum.encoded ? apply_jpeg<T>(decoder, image, window, out) : apply_plain<T>(datum, window, out);
}

void Transform::apply(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record, std::span<float> out) const {
  apply_as<float>(datum, iteration, record, out);
}

void Transform::apply(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record, std::span<double> out) const {
  apply_as<double>(datum, iteration, record, out);
}

}  // namespace poseidon::caffe
