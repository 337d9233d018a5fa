// Blobs put together and cut up: Concat, Crop, Slice and Tile.
//
// Pieces are copies that lie in one part of memory, as other layers may expect of their bottoms.
#include <ATen/ops/cat.h>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// The axis of Concat and Slice, for which there is an older name that knows no negative ones.
std::int64_t read_axis(const Layer& layer, const proto::Message& settings, const std::string& old_name) {
  if (!settings.has(old_name)) return settings.integer("axis");
  if (settings.has("axis")) {
    layer.fail_at(settings.position(old_name),
                  base::concat("has both axis and ", old_name, ", an older name for it; give one"));
  }
  return settings.integer(old_name);
}

class Concat final : public Layer {
 public:
  explicit Concat(const LayerConfig& config)
      : Layer(config, {.bottoms_max = BlobCounts::kAny}),
        axis_(read_axis(*this, message().message("concat_param"), "concat_dim")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::size_t axis = canonical_axis(axis_, bottoms[0]);
    Shape top = bottoms[0];
    for (std::size_t i = 1; i < bottoms.size(); ++i) {
      Shape same = bottoms[i];
      if (same.size() == top.size()) same[axis] = top[axis];
      if (same != top) {
        fail(base::concat("wants bottoms that differ along axis ", axis, " only; ", describe_bottom(0, bottoms[0]),
                          ", and ", describe_bottom(i, bottoms[i])));
      }
      top[axis] += bottoms[i][axis];
    }
    return {top};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    if (bottoms.size() == 1) return bottoms;
    return {at::cat(bottoms, axis_)};
  }

 private:
  std::int64_t axis_;
};

// Cuts the first bottom, from `axis` on, to the extents of the second, whose values do not matter.
class Crop final : public Layer {
 public:
  explicit Crop(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = 2}),
        settings_(message().message("crop_param")),
        offsets_(settings_.integers("offset")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& whole = bottoms[0];
    const Shape& size = bottoms[1];
    const std::size_t first = canonical_axis(settings_.integer("axis"), whole);
    if (size.size() < whole.size()) {
      fail(base::concat("wants a second bottom with the axes of the first; ", describe_bottom(0, whole), ", and ",
                        describe_bottom(1, size)));
    }
    if (offsets_.size() > 1 && first + offsets_.size() != whole.size()) {
      fail_at(settings_.position("offset"),
              base::concat("has ", offsets_.size(), " offsets for ", whole.size() - first,
                           " axes that it cuts; give one for all, or one each; ", describe_bottom(0, whole)));
    }
    Shape top = whole;
    for (std::size_t axis = first; axis < whole.size(); ++axis) {
      top[axis] = size[axis];
      if (offset(axis - first) + size[axis] <= whole[axis]) continue;
      fail(base::concat("cannot cut ", size[axis], " elements from ", offset(axis - first), " on out of axis ", axis,
                        "; ", describe_bottom(0, whole), ", and ", describe_bottom(1, size)));
    }
    return {top};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const Shape whole = bottoms[0].sizes().vec();
    const Shape top = top_shapes({whole, bottoms[1].sizes().vec()})[0];
    at::Tensor cut = bottoms[0];
    const std::size_t first = canonical_axis(settings_.integer("axis"), whole);
    for (std::size_t axis = first; axis < whole.size(); ++axis) {
      cut = cut.narrow(static_cast<std::int64_t>(axis), offset(axis - first), top[axis]);
    }
    return {cut.contiguous()};
  }

 private:
  // Of the nth axis that is cut.
  std::int64_t offset(std::size_t nth) const {
    if (offsets_.empty()) return 0;
    return offsets_.size() == 1 ? offsets_[0] : offsets_[nth];
  }

  proto::Message settings_;
  std::vector<std::int64_t> offsets_;
};

class Slice final : public Layer {
 public:
  explicit Slice(const LayerConfig& config)
      : Layer(config, {.tops_max = BlobCounts::kAny}),
        settings_(message().message("slice_param")),
        axis_(read_axis(*this, settings_, "slice_dim")),
        points_(settings_.integers("slice_point")) {
    if (!points_.empty() && points_.size() + 1 != tops().size()) {
      fail_at(settings_.position("slice_point"),
              base::concat("has ", points_.size(), " slice_point for ", tops().size(),
                           " tops; there must be one less than tops, or none for equal parts"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const std::size_t axis = canonical_axis(axis_, bottoms[0]);
    std::vector<Shape> shapes;
    for (const std::int64_t extent : extents(bottoms[0], axis)) {
      shapes.push_back(bottoms[0]);
      shapes.back()[axis] = extent;
    }
    return shapes;
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const Shape whole = bottoms[0].sizes().vec();
    std::vector<at::Tensor> slices;
    std::int64_t begin = 0;
    for (const std::int64_t extent : extents(whole, canonical_axis(axis_, whole))) {
      slices.push_back(bottoms[0].narrow(axis_, begin, extent).contiguous());
      begin += extent;
    }
    return slices;
  }

 private:
  // Of the tops, along the axis.
  std::vector<std::int64_t> extents(const Shape& bottom, std::size_t axis) const {
    const auto parts = static_cast<std::int64_t>(tops().size());
    if (points_.empty()) {
      if (bottom[axis] % parts != 0) {
        fail(base::concat("has ", parts, " tops, into which axis ", axis, " cannot be divided equally; ",
                          describe_bottom(0, bottom), "; give slice_point"));
      }
      return std::vector<std::int64_t>(tops().size(), bottom[axis] / parts);
    }
    std::vector<std::int64_t> found;
    std::int64_t begin = 0;
    for (std::size_t i = 0; i <= points_.size(); ++i) {
      const std::int64_t end = i < points_.size() ? points_[i] : bottom[axis];
      if (end <= begin) {
        fail_at(settings_.position("slice_point", i < points_.size() ? i : i - 1),
                base::concat("has slice_point ", points_[i < points_.size() ? i : i - 1],
                             "; they must rise from above 0 to below the extent of axis ", axis, "; ",
                             describe_bottom(0, bottom)));
      }
      found.push_back(end - begin);
      begin = end;
    }
    return found;
  }

  proto::Message settings_;
  std::int64_t axis_;
  std::vector<std::int64_t> points_;
};

// The bottom `tiles` times, one behind the other along the axis.
class Tile final : public Layer {
 public:
  explicit Tile(const LayerConfig& config)
      : Layer(config, {}), settings_(message().message("tile_param")), tiles_(settings_.integer("tiles")) {
    if (tiles_ < 1) fail_at(settings_.position("tiles"), "needs tiles, at least 1");
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    Shape top = bottoms[0];
    top[canonical_axis(settings_.integer("axis"), top)] *= tiles_;
    return {top};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    Shape times(static_cast<std::size_t>(bottoms[0].dim()), 1);
    times[canonical_axis(settings_.integer("axis"), bottoms[0].sizes().vec())] = tiles_;
    return {bottoms[0].repeat(times)};
  }

 private:
  proto::Message settings_;
  std::int64_t tiles_;
};

}  // namespace

std::unique_ptr<Layer> make_concat(const LayerConfig& config) {
  return std::make_unique<Concat>(config);
}
std::unique_ptr<Layer> make_crop(const LayerConfig& config) {
  return std::make_unique<Crop>(config);
}
std::unique_ptr<Layer> make_slice(const LayerConfig& config) {
  return std::make_unique<Slice>(config);
}
std::unique_ptr<Layer> make_tile(const LayerConfig& config) {
  return std::make_unique<Tile>(config);
}

}  // namespace poseidon::caffe
