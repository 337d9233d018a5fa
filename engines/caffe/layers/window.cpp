#include "engines/caffe/layers/window.h"

#include <string>

#include "base/text.h"

namespace poseidon::caffe {
namespace {

using proto::Message;

void require(const Layer& layer, const Message& settings, const std::string& field, const Extent& value,
             std::int64_t least) {
  if (value[0] >= least && value[1] >= least) return;
  layer.fail_at(settings.position(field),
                base::concat("has ", field, " ", value[0], "x", value[1], "; it must be at least ", least));
}

// The pair "<stem>_h" and "<stem>_w". Each has its default where it alone is missing.
Extent read_pair(const Message& settings, const std::string& stem, std::int64_t missing) {
  const auto read = [&](const std::string& field) { return settings.has(field) ? settings.integer(field) : missing; };
  return {read(stem + "_h"), read(stem + "_w")};
}

bool has_pair(const Message& settings, const std::string& stem) {
  return settings.has(stem + "_h") || settings.has(stem + "_w");
}

void refuse_both(const Layer& layer, const Message& settings, const std::string& field, const std::string& stem) {
  if (settings.has(field) && has_pair(settings, stem)) {
    layer.fail_at(settings.position(field),
                  base::concat("has both ", field, " and ", stem, "_h or ", stem, "_w; give one"));
  }
}

Extent read_single(const Layer& layer, const Message& settings, const std::string& field, const std::string& stem,
                   std::int64_t missing) {
  refuse_both(layer, settings, field, stem);
  if (has_pair(settings, stem)) return read_pair(settings, stem, missing);
  const std::int64_t value = settings.has(field) ? settings.integer(field) : missing;
  return {value, value};
}

}  // namespace

Window read_pooling_window(const Layer& layer, const Message& settings) {
  const bool global = settings.flag("global_pooling");
  Window window{.kernel = read_single(layer, settings, "kernel_size", "kernel", 0),
                .stride = read_single(layer, settings, "stride", "stride", 1),
                .pad = read_single(layer, settings, "pad", "pad", 0)};
  require(layer, settings, "stride", window.stride, 1);
  if (global) {
    if (settings.has("kernel_size") || has_pair(settings, "kernel")) {
      layer.fail_at(settings.position("global_pooling"),
                    "has global_pooling, whose kernel is the whole image, and a kernel size");
    }
    if (window.pad != Extent{0, 0} || window.stride != Extent{1, 1}) {
      layer.fail_at(settings.position("global_pooling"), "has global_pooling, which allows neither pad nor stride");
    }
    window.kernel = {1, 1};
    return window;
  }
  require(layer, settings, "kernel_size", window.kernel, 1);
  for (std::size_t axis = 0; axis < 2; ++axis) {
    if (window.pad[axis] >= window.kernel[axis]) {
      layer.fail_at(settings.position(), base::concat("has a pad of ", window.pad[axis], " for a kernel of ",
                                                      window.kernel[axis], "; it must be smaller"));
    }
  }
  return window;
}

}  // namespace poseidon::caffe
