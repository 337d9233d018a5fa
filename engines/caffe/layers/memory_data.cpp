// MemoryData: images and labels from arrays that the program gives (Net::feed), a batch of them in each pass.
//
// A pass takes the records that it asks for, modulo how many there are; so workers that were all given the same share
// it out. As Caffe's Reset(), nothing is transformed on the way.
#include <ATen/ops/arange.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class MemoryData final : public Layer {
 public:
  explicit MemoryData(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 0, .tops_min = 2, .tops_max = 2}) {
    const proto::Message settings = message().message("memory_data_param");
    for (const char* const field : {"batch_size", "channels", "height", "width"}) {
      const std::int64_t extent = settings.integer(field);
      if (extent < 1) fail_at(settings.position(field), base::concat("needs ", field, ", at least 1"));
      shape_.push_back(extent);
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return {shape_, {shape_[0]}}; }
  std::size_t records_per_batch() const override { return static_cast<std::size_t>(shape_[0]); }

  // Any whole number of batches: images [records, channels, height, width], a label for each, in any shape.
  bool feed(std::size_t top, const at::Tensor& value) override {
    const Shape given = value.sizes().vec();
    const bool is_images = top == 0;
    const bool fits =
        !is_images || (given.size() == 4 && std::equal(given.begin() + 1, given.end(), shape_.begin() + 1));
    const std::int64_t records = is_images && fits ? given[0] : value.numel();
    if (!fits || records == 0 || records % shape_[0] != 0) {
      fail(base::concat("takes \"", tops()[top], "\" as ", base::readable_shape(is_images ? shape_ : Shape{shape_[0]}),
                        " or several such batches, and was given ", base::readable_shape(given)));
    }
    (is_images ? images_ : labels_) = (is_images ? value : value.reshape({-1})).to(dtype());
    return true;
  }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>&) override {
    if (!images_.defined() || !labels_.defined()) {
      fail(
          "has no records: the program that builds the net gives it images and labels before the first pass; the "
          "commands "
          "of poseidon have none to give, so use Data or ImageData with them");
    }
    if (images_.size(0) != labels_.size(0)) {
      fail(base::concat("was given ", images_.size(0), " images and ", labels_.size(0), " labels"));
    }
    const std::int64_t first =
        static_cast<std::int64_t>(context.first_record % static_cast<std::uint64_t>(images_.size(0)));
    const at::Tensor places = at::arange(first, first + shape_[0], at::kLong).remainder(images_.size(0));
    return {images_.index_select(0, places), labels_.index_select(0, places)};
  }

 private:
  Shape shape_;        // [batch_size, channels, height, width]
  at::Tensor images_;  // [records, channels, height, width]
  at::Tensor labels_;  // [records]
};

}  // namespace

std::unique_ptr<Layer> make_memory_data(const LayerConfig& config) {
  return std::make_unique<MemoryData>(config);
}

}  // namespace poseidon::caffe
