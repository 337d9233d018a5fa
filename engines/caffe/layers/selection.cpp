// Rows chosen by numbers: BatchReindex takes rows of a blob, Embed rows of its weight, Filter the rows that a selector
// marks.
#include <ATen/ops/embedding.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

// For when ATen has refused a bottom's values as indices: throws ConfigError that names the first one outside
// [0, rows). Returns where all are inside, and the trouble was another.
void explain_bad_index(const Layer& layer, std::size_t bottom, const at::Tensor& indices, std::int64_t rows,
                       std::string_view noun) {
  const at::Tensor flat = indices.contiguous();
  const std::int64_t* const values = flat.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    if (values[i] >= 0 && values[i] < rows) continue;
    layer.fail(base::concat("met the number ", values[i], " as element ", i, " of \"", layer.bottoms()[bottom],
                            "\", but has ", rows, " ", noun, ": they are numbered from 0 to ", rows - 1));
  }
}

// top[i] = first bottom[second bottom[i]]. Rows may come several times, or never; numbers count in this worker's batch.
class BatchReindex final : public Layer {
 public:
  explicit BatchReindex(const LayerConfig& config) : Layer(config, {.bottoms_min = 2, .bottoms_max = 2}) {}

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    if (bottoms[0].empty()) fail(base::concat("wants rows to choose from; ", describe_bottom(0, bottoms[0])));
    if (bottoms[1].size() != 1) {
      fail(base::concat("wants the numbers of rows along 1 axis; ", describe_bottom(1, bottoms[1])));
    }
    Shape top = bottoms[0];
    top[0] = bottoms[1][0];
    return {top};
  }

  bool differentiable(std::size_t bottom) const override { return bottom == 0; }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor indices = bottoms[1].to(at::kLong);
    try {
      return {bottoms[0].index_select(0, indices)};
    } catch (const c10::Error&) {
      explain_bad_index(*this, 1, indices, bottoms[0].size(0), "rows");
      throw;
    }
  }
};

// A vector of the weight [input_dim, num_output] for each element of the bottom, plus a bias.
class Embed final : public Layer {
 public:
  explicit Embed(const LayerConfig& config)
      : Layer(config, {}),
        settings_(message().message("embed_param")),
        outputs_(settings_.integer("num_output")),
        inputs_(settings_.integer("input_dim")),
        has_bias_(settings_.flag("bias_term")) {
    if (outputs_ < 1) fail_at(settings_.position("num_output"), "needs num_output, at least 1");
    if (inputs_ < 1) fail_at(settings_.position("input_dim"), "needs input_dim, at least 1");
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    Shape top = bottoms[0];
    top.push_back(outputs_);
    return {top};
  }

  // The choice of a row is kept, not the row.
  bool keeps_tops() const override { return false; }
  bool differentiable(std::size_t) const override { return false; }

  std::size_t touched_rows() const override { return touched_; }

  std::vector<at::Tensor> forward(const ForwardContext& context, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor indices = bottoms[0].to(at::kLong);
    try {
      const at::Tensor rows = at::embedding(array(0), indices, /*padding_idx=*/-1, /*scale_grad_by_freq=*/false,
                                            context.sparse_gradient);
      return {has_bias_ ? rows + array(1) : rows};
    } catch (const c10::Error&) {
      explain_bad_index(*this, 0, indices, inputs_, "inputs");
      throw;
    }
  }

 private:
  void declare_parameters(const std::vector<Shape>& bottoms) override {
    touched_ = static_cast<std::size_t>(std::min(inputs_, elements_of(bottoms[0])));
    add_parameter("weight", {inputs_, outputs_}, read_filler(settings_.message("weight_filler")));
    if (has_bias_) add_parameter("bias", {outputs_}, read_filler(settings_.message("bias_filler")));
  }

  proto::Message settings_;
  std::int64_t outputs_;
  std::int64_t inputs_;
  bool has_bias_;
  std::size_t touched_ = 0;  // rows a batch
};

// The rows for which the last bottom is not zero, of each other bottom. How many these are is known with the batch; the
// shapes that are told beforehand are those of all rows.
class Filter final : public Layer {
 public:
  explicit Filter(const LayerConfig& config)
      : Layer(config, {.bottoms_min = 2, .bottoms_max = BlobCounts::kAny, .tops_max = BlobCounts::kAny}) {
    if (tops().size() + 1 != bottoms().size()) {
      fail(base::concat("wants a top for each bottom but the last, which selects; it has ", bottoms().size(),
                        " bottoms and ", tops().size(), " tops"));
    }
  }

  std::vector<Shape> top_shapes(const std::vector<Shape>& bottoms) const override {
    const Shape& selector = bottoms.back();
    if (selector.empty() || elements_of(selector) != selector[0]) {
      fail(base::concat("wants one number for each row to select by; ", describe_bottom(bottoms.size() - 1, selector)));
    }
    for (std::size_t i = 0; i + 1 < bottoms.size(); ++i) {
      if (!bottoms[i].empty() && bottoms[i][0] == selector[0]) continue;
      fail(base::concat("wants as many rows in each bottom as it selects from; ", describe_bottom(i, bottoms[i]),
                        ", and ", describe_bottom(bottoms.size() - 1, selector)));
    }
    return {bottoms.begin(), bottoms.end() - 1};
  }

  bool differentiable(std::size_t bottom) const override { return bottom + 1 < bottoms().size(); }

  std::vector<at::Tensor> forward(const ForwardContext&, const std::vector<at::Tensor>& bottoms) override {
    const at::Tensor chosen = at::nonzero(bottoms.back().flatten()).flatten();
    std::vector<at::Tensor> tops;
    for (std::size_t i = 0; i + 1 < bottoms.size(); ++i) tops.push_back(bottoms[i].index_select(0, chosen));
    return tops;
  }
};

}  // namespace

std::unique_ptr<Layer> make_batch_reindex(const LayerConfig& config) {
  return std::make_unique<BatchReindex>(config);
}
std::unique_ptr<Layer> make_embed(const LayerConfig& config) {
  return std::make_unique<Embed>(config);
}
std::unique_ptr<Layer> make_filter(const LayerConfig& config) {
  return std::make_unique<Filter>(config);
}

}  // namespace poseidon::caffe
