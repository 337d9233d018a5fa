// Input: blobs whose values the program gives. Zeros until then.
#include <ATen/ops/zeros.h>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class Input final : public Layer {
 public:
  explicit Input(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 0, .tops_max = BlobCounts::kAny}) {
    const proto::Message settings = message().message("input_param");
    const std::vector<proto::Message> shapes = settings.messages("shape");
    if (shapes.size() != 1 && shapes.size() != tops().size()) {
      fail_at(settings.position(), base::concat("needs one shape for all its tops or one each: it has ", shapes.size(),
                                                " shapes and ", tops().size(), " tops"));
    }
    for (std::size_t top = 0; top < tops().size(); ++top) {
      shapes_.push_back(shapes[shapes.size() == 1 ? 0 : top].integers("dim"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override { return shapes_; }

  std::size_t records_per_batch() const override {
    return shapes_[0].empty() ? 1 : static_cast<std::size_t>(shapes_[0][0]);
  }

  // The number of records may differ from the prototxt's, the other axes may not.
  bool feed(std::size_t top, const at::Tensor& value) override {
    const Shape& declared = shapes_.at(top);
    const Shape given = value.sizes().vec();
    const bool fits = given.size() == declared.size() &&
                      (given.empty() || std::equal(given.begin() + 1, given.end(), declared.begin() + 1));
    if (!fits) {
      fail(base::concat("takes \"", tops()[top], "\" as ", base::readable_shape(declared), ", and was given ",
                        base::readable_shape(given)));
    }
    values_.resize(tops().size());
    values_[top] = value.to(dtype());
    return true;
  }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>&) override {
    values_.resize(tops().size());
    for (std::size_t top = 0; top < tops().size(); ++top) {
      if (!values_[top].defined()) values_[top] = at::zeros(shapes_[top], at::TensorOptions(dtype()));
    }
    return values_;
  }

 private:
  std::vector<Shape> shapes_;
  std::vector<at::Tensor> values_;
};

}  // namespace

std::unique_ptr<Layer> make_input(const LayerConfig& config) {
  return std::make_unique<Input>(config);
}

}  // namespace poseidon::caffe
