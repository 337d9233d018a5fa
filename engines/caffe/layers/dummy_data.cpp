// DummyData: blobs that fillers fill. What a filler draws is drawn anew in each pass.
//
// Each row's numbers are drawn for (seed, layer, top, iteration, number of the row in the global batch), and what a
// filler derives from the array's shape it derives from that of the global batch: N workers draw what one would.
#include <ATen/ops/empty.h>

#include <span>
#include <utility>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

class DummyData final : public Layer {
 public:
  explicit DummyData(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 0, .bottoms_max = 0, .tops_max = BlobCounts::kAny}),
        settings_(message().message("dummy_data_param")) {
    const std::vector<Shape> shapes = has_old_fields() ? old_shapes() : stated_shapes();
    const std::vector<proto::Message> fillers = settings_.messages("data_filler");
    if (fillers.size() > 1 && fillers.size() != tops().size()) {
      fail_at(settings_.position("data_filler"), wrong_count("data_filler", fillers.size()));
    }
    for (std::size_t i = 0; i < tops().size(); ++i) {
      Top top{.shape = shapes[i], .filler = {}, .constant = {}};
      if (!fillers.empty()) top.filler = read_filler(fillers[fillers.size() == 1 ? 0 : i]);
      // No filler but these is the same each time.
      const Filler::Kind kind = top.filler.kind;
      if (kind == Filler::Kind::kConstant || kind == Filler::Kind::kBilinear) top.constant = fixed(top);
      contents_.push_back(std::move(top));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>&) const override {
    std::vector<Shape> shapes;
    for (const Top& top : contents_) shapes.push_back(top.shape);
    return shapes;
  }

  std::size_t records_per_batch() const override {
    return contents_[0].shape.empty() ? 1 : static_cast<std::size_t>(contents_[0].shape[0]);
  }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>&) override {
    std::vector<at::Tensor> values;
    for (std::size_t i = 0; i < contents_.size(); ++i) {
      values.push_back(contents_[i].constant.defined() ? contents_[i].constant : draw(context, i));
    }
    return values;
  }

 private:
  struct Top {
    Shape shape;
    Filler filler;
    at::Tensor constant;  // undefined where it is drawn anew
  };

  bool has_old_fields() const {
    return settings_.has("num") || settings_.has("channels") || settings_.has("height") || settings_.has("width");
  }

  std::string wrong_count(const std::string& field, std::size_t count) const {
    return base::concat("has ", count, " ", field, " for ", tops().size(), " tops; give one for all, or one each");
  }

  std::vector<Shape> stated_shapes() const {
    const std::vector<proto::Message> stated = settings_.messages("shape");
    if (stated.size() != 1 && stated.size() != tops().size()) {
      fail_at(settings_.position("shape"), wrong_count("shape", stated.size()));
    }
    std::vector<Shape> shapes;
    for (std::size_t i = 0; i < tops().size(); ++i) {
      const proto::Message& shape = stated[stated.size() == 1 ? 0 : i];
      shapes.push_back(shape.integers("dim"));
      for (std::size_t axis = 0; axis < shapes.back().size(); ++axis) {
        check_extent(shape.position("dim", axis), shapes.back()[axis]);
      }
    }
    return shapes;
  }

  // [num, channels, height, width], each stated once or for each top.
  std::vector<Shape> old_shapes() const {
    if (settings_.has("shape")) {
      fail_at(settings_.position("shape"), "has shape, and num, channels, height or width, an older way to say it");
    }
    std::vector<Shape> shapes(tops().size());
    for (const char* const field : {"num", "channels", "height", "width"}) {
      const std::vector<std::int64_t> extents = settings_.integers(field);
      if (extents.size() != 1 && extents.size() != tops().size()) {
        fail_at(settings_.position(field), wrong_count(field, extents.size()));
      }
      for (std::size_t i = 0; i < tops().size(); ++i) {
        const std::size_t nth = extents.size() == 1 ? 0 : i;
        check_extent(settings_.position(field, nth), extents[nth]);
        shapes[i].push_back(extents[nth]);
      }
    }
    return shapes;
  }

  void check_extent(const proto::Position& position, std::int64_t extent) const {
    if (extent < 1) fail_at(position, base::concat("has an extent of ", extent, "; it must be at least 1"));
  }

  // Here rather than in the first pass, so that a filler that does not suit its shape is refused with the settings.
  at::Tensor fixed(const Top& top) const {
    try {
      return filled(top.filler, top.shape, dtype(), base::RandomStream(seed(), name()));
    } catch (const ConfigError& error) {
      fail(base::concat("cannot be filled: ", error.what()));
    }
  }

  at::Tensor draw(const ForwardContext& context, std::size_t number) const {
    const Top& top = contents_[number];
    const at::Tensor drawn = at::empty(top.shape, at::kDouble);
    const std::span<double> values(drawn.mutable_data_ptr<double>(), static_cast<std::size_t>(drawn.numel()));
    // What has no axes has no records either: it is one number for all.
    const std::int64_t rows = top.shape.empty() ? 1 : top.shape[0];
    const std::uint64_t first_row = top.shape.empty() ? 0 : context.first_row(rows);
    Shape global = top.shape;
    // A batch of a test is one worker's alone.
    if (!global.empty() && phase() == Phase::kTrain) global[0] = static_cast<std::int64_t>(context.rows_of_all(rows));
    const std::size_t size = values.size() / static_cast<std::size_t>(rows);
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      const base::RandomStream stream(seed(),
                                      base::concat(name(), ".", number, ".", context.iteration, ".", first_row + row));
      fill_rows(top.filler, global, stream, values.subspan(row * size, size));
    }
    return drawn.to(dtype());
  }

  proto::Message settings_;
  std::vector<Top> contents_;  // per top
};

}  // namespace

std::unique_ptr<Layer> make_dummy_data(const LayerConfig& config) {
  return std::make_unique<DummyData>(config);
}

}  // namespace poseidon::caffe
