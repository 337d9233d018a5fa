// Layers that compute nothing: Flatten and Reshape give a blob another shape, Split several names, Silence none.
//
// Their tops share the bottom's memory.
#include <algorithm>
#include <utility>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// Makes one axis of those from `axis` to `end_axis`; where `end_axis` is the one before `axis`, puts in one of
// extent 1.
class Flatten final : public Layer {
 public:
  explicit Flatten(const LayerConfig& config) : Layer(config, {}), settings_(message().message("flatten_param")) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    const std::size_t first = canonical_axis(settings_.integer("axis"), bottom);
    const std::size_t behind = canonical_axis(settings_.integer("end_axis"), bottom) + 1;
    if (behind < first) {
      fail_at(settings_.position("end_axis"),
              base::concat("has end_axis ", behind - 1, " before axis ", first, "; ", describe_bottom(0, bottom)));
    }
    const auto begin = bottom.begin() + static_cast<std::ptrdiff_t>(first);
    const auto end = bottom.begin() + static_cast<std::ptrdiff_t>(behind);
    Shape top(bottom.begin(), begin);
    top.push_back(elements_of(Shape(begin, end)));
    top.insert(top.end(), end, bottom.end());
    return {top};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    return {bottoms[0].reshape(top_shapes({bottoms[0].sizes().vec()})[0])};
  }

 private:
  proto::Message settings_;
};

class Reshape final : public Layer {
 public:
  explicit Reshape(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("reshape_param")),
        wanted_(settings_.message("shape").integers("dim")) {
    bool inferred = false;
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      if (wanted_[i] < -1) refuse_dim(i, "; it must be an extent, 0 for the bottom's own, or -1 for what is left");
      if (wanted_[i] == -1 && inferred) refuse_dim(i, " for a second time; only one extent can be what is left");
      inferred = inferred || wanted_[i] == -1;
    }
    if (settings_.integer("num_axes") < -1) {
      fail_at(settings_.position("num_axes"), base::concat("has num_axes ", settings_.integer("num_axes"),
                                                           "; it must be at least 0, or -1 for all from axis on"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& bottom = bottoms[0];
    const auto [first, behind] = replaced(bottom);
    Shape top(bottom.begin(), bottom.begin() + first);
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      top.push_back(wanted_[i] == 0 ? extent_of(top.size(), i, bottom) : wanted_[i]);
    }
    top.insert(top.end(), bottom.begin() + behind, bottom.end());
    if (const auto left = std::find(top.begin(), top.end(), -1); left != top.end()) {
      *left = 1;
      if (const std::int64_t others = elements_of(top); others > 0) *left = elements_of(bottom) / others;
    }
    if (elements_of(top) != elements_of(bottom)) {
      fail_at(settings_.position("shape"),
              base::concat("cannot make ", base::readable_shape(top), ", which has ", elements_of(top),
                           " elements, of ", elements_of(bottom), "; ", describe_bottom(0, bottom)));
    }
    return {top};
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    return {bottoms[0].reshape(top_shapes({bottoms[0].sizes().vec()})[0])};
  }

 private:
  // The axes of the bottom that `shape` stands for: from the first up to, not including, the second. A negative `axis`
  // counts from behind the last one: -1 appends.
  std::pair<std::ptrdiff_t, std::ptrdiff_t> replaced(const Shape& bottom) const {
    const auto axes = static_cast<std::int64_t>(bottom.size());
    const std::int64_t axis = settings_.integer("axis");
    const std::int64_t first = axis >= 0 ? axis : axis + axes + 1;
    if (first < 0 || first > axes) {
      fail_at(settings_.position("axis"), base::concat("has axis ", axis, "; it must be from ", -axes - 1, " to ", axes,
                                                       "; ", describe_bottom(0, bottom)));
    }
    const std::int64_t count = settings_.integer("num_axes");
    if (count > axes - first) {
      fail_at(settings_.position("num_axes"),
              base::concat("has num_axes ", count, ", but from axis ", first, " on there are ", axes - first, "; ",
                           describe_bottom(0, bottom)));
    }
    return {first, count == -1 ? axes : first + count};
  }

  // 0 keeps the bottom's extent, of the axis that has the same number.
  std::int64_t extent_of(std::size_t axis, std::size_t nth, const Shape& bottom) const {
    if (axis < bottom.size()) return bottom[axis];
    refuse_dim(nth, base::concat(" for axis ", axis, ", which its bottom does not have; ", describe_bottom(0, bottom)));
  }

  [[noreturn]] void refuse_dim(std::size_t nth, std::string_view why) const {
    fail_at(settings_.message("shape").position("dim", nth), base::concat("has dim ", wanted_[nth], why));
  }

  proto::Message settings_;
  std::vector<std::int64_t> wanted_;
};

// Reads its bottoms so that they are no outputs of the net.
class Silence final : public Layer {
 public:
  explicit Silence(const LayerConfig& config)
      : Layer(config, {.bottoms_max = BlobCounts::kAny, .tops_min = 0, .tops_max = 0}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return {}; }
  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>&) override { return {}; }
};

// Nets need none, since a blob may have several readers; Caffe puts them in by itself and writes them into models.
class Split final : public Layer {
 public:
  explicit Split(const LayerConfig& config) : Layer(config, {.tops_max = BlobCounts::kAny}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    return std::vector<Shape>(tops().size(), bottoms[0]);
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    std::vector<at::Tensor> names;
    for (std::size_t i = 0; i < tops().size(); ++i) names.push_back(bottoms[0].view_as(bottoms[0]));
    return names;
  }
};

}  // namespace

std::unique_ptr<Layer> make_flatten(const LayerConfig& config) {
  return std::make_unique<Flatten>(config);
}
std::unique_ptr<Layer> make_reshape(const LayerConfig& config) {
  return std::make_unique<Reshape>(config);
}
std::unique_ptr<Layer> make_silence(const LayerConfig& config) {
  return std::make_unique<Silence>(config);
}
std::unique_ptr<Layer> make_split(const LayerConfig& config) {
  return std::make_unique<Split>(config);
}

}  // namespace poseidon::caffe
