// N workers with b records each compute what one computes with N·b records: layer by layer, the tops for parts of a
// batch are those of the whole batch.
#include <ATen/ops/cat.h>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

struct Case {
  std::string_view text;
  std::vector<Shape> records;  // of each bottom, without the axis that counts records
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"type: 'AbsVal' bottom: 'x' top: 'y'", {{3, 2}}},
      {"type: 'ArgMax' bottom: 'x' top: 'y' argmax_param { top_k: 2 }", {{3, 2}}},
      {"type: 'Bias' bottom: 'x' top: 'y' bias_param { filler { type: 'gaussian' } }", {{3, 2}}},
      {"type: 'Bias' bottom: 'x' bottom: 'z' top: 'y' bias_param { axis: 0 }", {{3, 2}, {3}}},
      {"type: 'Concat' bottom: 'x' bottom: 'z' top: 'y'", {{3, 2}, {1, 2}}},
      {"type: 'Crop' bottom: 'x' bottom: 'z' top: 'y' crop_param { axis: 1 offset: 1 }", {{3, 4}, {2, 2}}},
      {"type: 'Dropout' bottom: 'x' top: 'y'", {{3, 5}}},
      {"type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' eltwise_param { operation: MAX }", {{3, 2}, {3, 2}}},
      {"type: 'Filter' bottom: 'x' bottom: 'z' top: 'y'", {{3, 2}, {}}},
      {"type: 'Flatten' bottom: 'x' top: 'y'", {{3, 2}}},
      {"type: 'Pooling' bottom: 'x' top: 'y' pooling_param { pool: STOCHASTIC kernel_size: 2 }", {{3, 4, 5}}},
      {"type: 'PReLU' bottom: 'x' top: 'y'", {{3, 2}}},
      {"type: 'Reduction' bottom: 'x' top: 'y' reduction_param { axis: 1 operation: MEAN }", {{3, 2}}},
      {"type: 'Reshape' bottom: 'x' top: 'y' reshape_param { shape { dim: 0 dim: 2 dim: -1 } }", {{3, 2}}},
      {"type: 'Scale' bottom: 'x' top: 'y' scale_param { filler { type: 'gaussian' } bias_term: true }", {{3, 2}}},
      {"type: 'Slice' bottom: 'x' top: 'y' top: 'z' slice_param { slice_point: 1 }", {{3, 2}}},
      {"type: 'SPP' bottom: 'x' top: 'y' spp_param { pyramid_height: 2 pool: STOCHASTIC }", {{2, 4, 6}}},
      {"type: 'Threshold' bottom: 'x' top: 'y'", {{3, 2}}},
      {"type: 'Tile' bottom: 'x' top: 'y' tile_param { tiles: 2 }", {{3, 2}}},
  };
  return all;
}

TEST(Layers, ComputeForThePartsOfABatchWhatTheyComputeForTheWhole) {
  constexpr std::int64_t kWorkers = 3;
  constexpr std::int64_t kRecords = 2;  // of each worker
  std::mt19937_64 random(1);
  for (const Case& one : cases()) {
    const std::string text = base::concat("name: 'l' ", one.text);
    SCOPED_TRACE(text);
    const auto shapes_for = [&](std::int64_t records) {
      std::vector<Shape> shapes = one.records;
      for (Shape& shape : shapes) shape.insert(shape.begin(), records);
      return shapes;
    };
    std::vector<at::Tensor> whole;
    // Positive numbers and zeros, as stochastic pooling and Filter want them.
    for (const Shape& shape : shapes_for(kWorkers * kRecords)) {
      whole.push_back(random_tensor(shape, random).clamp_min(0));
    }
    const auto pass = [&](std::int64_t first, std::int64_t records) {
      std::vector<at::Tensor> part;
      for (const at::Tensor& bottom : whole) part.push_back(bottom.narrow(0, first, records));
      return make_layer(text, shapes_for(records))
          .layer->forward({.iteration = 4,
                           .first_record = 60 + static_cast<std::uint64_t>(first),
                           .records = static_cast<std::uint64_t>(records),
                           .record_stride = kWorkers * kRecords},
                          part);
    };
    const std::vector<at::Tensor> wanted = pass(0, kWorkers * kRecords);
    std::vector<std::vector<at::Tensor>> parts(wanted.size());
    for (std::int64_t worker = 0; worker < kWorkers; ++worker) {
      const std::vector<at::Tensor> tops = pass(worker * kRecords, kRecords);
      ASSERT_EQ(tops.size(), wanted.size());
      for (std::size_t top = 0; top < tops.size(); ++top) parts[top].push_back(tops[top]);
    }
    for (std::size_t top = 0; top < wanted.size(); ++top) EXPECT_TRUE(at::cat(parts[top]).equal(wanted[top]));
  }
}

}  // namespace
}  // namespace poseidon::caffe
