#include "engines/caffe/layers/spatial_window.h"

#include <limits>
#include <string>

#include "base/text.h"

namespace poseidon::caffe {
namespace {

using proto::Message;
using Values = std::vector<std::int64_t>;

// Bounds that keep a reach and a top's extent within 63 bits.
constexpr std::int64_t kValueMax = std::numeric_limits<std::int32_t>::max();

// "3x5".
std::string by_axis(const Values& values) {
  std::string text;
  for (const std::int64_t value : values) text += base::concat(text.empty() ? "" : "x", value);
  return text;
}

void require(const Layer& layer, const Message& settings, const std::string& field, const Values& values,
             std::int64_t least) {
  for (const std::int64_t value : values) {
    if (value >= least && value <= kValueMax) continue;
    layer.fail_at(settings.position(field),
                  base::concat("has ", field, " ", by_axis(values), "; it must be ",
                               value < least ? base::concat("at least ", least) : "below 2^31"));
  }
}

Values read_repeated(const Layer& layer, const Message& settings, const std::string& field, std::size_t axes,
                     std::int64_t missing) {
  const Values values = settings.integers(field);
  if (values.size() > 1 && values.size() != axes) {
    layer.fail_at(settings.position(field, values.size() > axes ? axes : 0),
                  base::concat("has ", values.size(), " values of ", field, " for ", axes,
                               " spatial axes; give one for all, or one each"));
  }
  return values.size() == axes ? values : Values(axes, values.empty() ? missing : values[0]);
}

// The repeated field, or "<stem>_h" and "<stem>_w", of which each has its default where it alone is missing.
Values read_field(const Layer& layer, const Message& settings, const std::string& field, const std::string& stem,
                  std::size_t axes, std::int64_t missing) {
  Values pair;
  bool is_pair = false;
  for (const std::string& side : {stem + "_h", stem + "_w"}) {
    pair.push_back(settings.has(side) ? settings.integer(side) : missing);
    if (!settings.has(side)) continue;
    is_pair = true;
    if (axes == 2) continue;
    layer.fail_at(settings.position(side),
                  base::concat("has ", side, ", which is for 2 spatial axes, and its bottom has ", axes));
  }
  if (!is_pair) return read_repeated(layer, settings, field, axes, missing);
  if (settings.has(field)) {
    layer.fail_at(settings.position(field),
                  base::concat("has both ", field, " and ", stem, "_h or ", stem, "_w; give one"));
  }
  return pair;
}

}  // namespace

SpatialWindow read_spatial_window(const Layer& layer, const Message& settings, std::size_t axes) {
  SpatialWindow window{.kernel = read_field(layer, settings, "kernel_size", "kernel", axes, 0),
                       .stride = read_field(layer, settings, "stride", "stride", axes, 1),
                       .pad = read_field(layer, settings, "pad", "pad", axes, 0),
                       .dilation = read_repeated(layer, settings, "dilation", axes, 1)};
  require(layer, settings, "kernel_size", window.kernel, 1);
  require(layer, settings, "stride", window.stride, 1);
  require(layer, settings, "pad", window.pad, 0);
  require(layer, settings, "dilation", window.dilation, 1);
  double taps = 1;
  for (const std::int64_t extent : window.kernel) taps *= static_cast<double>(extent);
  if (taps > static_cast<double>(kValueMax)) {
    layer.fail_at(settings.position("kernel_size"),
                  base::concat("has a kernel of ", by_axis(window.kernel), "; it must have fewer than 2^31 elements"));
  }
  return window;
}

SpatialShape split_at_channels(const Shape& shape, std::size_t channel_axis) {
  const auto channels = shape.begin() + static_cast<std::ptrdiff_t>(channel_axis);
  return {.records = elements_of(Shape(shape.begin(), channels)),
          .channels = *channels,
          .extents = Shape(channels + 1, shape.end())};
}

Shape with_channels(const Shape& shape, std::size_t channel_axis, std::int64_t channels, const Values& extents) {
  Shape changed(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(channel_axis));
  changed.push_back(channels);
  changed.insert(changed.end(), extents.begin(), extents.end());
  return changed;
}

std::vector<std::int64_t> places(const Layer& layer, const SpatialWindow& window, std::size_t bottom,
                                 const Shape& shape, std::size_t channel_axis) {
  Values counts;
  for (std::size_t axis = 0; axis < window.axes(); ++axis) {
    const std::int64_t padded = shape[channel_axis + 1 + axis] + 2 * window.pad[axis];
    if (window.reach(axis) > padded) {
      layer.fail(base::concat("has a kernel that reaches over ", window.reach(axis), " elements of axis ",
                              channel_axis + 1 + axis, ", which has ", padded, " with its padding: bottom \"",
                              layer.bottoms()[bottom], "\" is ", base::readable_shape(shape)));
    }
    counts.push_back((padded - window.reach(axis)) / window.stride[axis] + 1);
  }
  return counts;
}

}  // namespace poseidon::caffe
