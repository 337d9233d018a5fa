// DummyData and Parameter: blobs that come from no bottom.
#include <ATen/ops/cat.h>

#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string dummy(std::string_view tops, std::string_view settings) {
  return base::concat("name: 'd' type: 'DummyData' ", tops, "\ndummy_data_param { ", settings, " }");
}

TEST(DummyData, IsZeroOrWhatAConstantFillerSays) {
  const std::vector<at::Tensor> zeros = tops_of(dummy("top: 'x' top: 'y'", "shape { dim: 2 dim: 3 }"), {});
  ASSERT_EQ(zeros.size(), 2u);
  for (const at::Tensor& top : zeros) expect_near(top, {0, 0, 0, 0, 0, 0}, 0);
  const std::vector<at::Tensor> two =
      tops_of(dummy("top: 'x' top: 'y'",
                    "shape { dim: 2 } shape { dim: 1 dim: 3 } data_filler { value: 5 } data_filler { value: -1 }"),
              {});
  expect_near(two[0], {5, 5}, 0);
  EXPECT_EQ(two[1].sizes().vec(), (Shape{1, 3}));
  expect_near(two[1], {-1, -1, -1}, 0);
}

TEST(DummyData, UnderstandsTheOlderWayToStateShapes) {
  const Made made =
      make_layer(dummy("top: 'x' top: 'y'", "num: 2 num: 5 channels: 3 height: 4 height: 1 width: 6"), {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{2, 3, 4, 6}, {5, 3, 1, 6}}));
  EXPECT_EQ(made.layer->records_per_batch(), 2u);
}

constexpr std::string_view kGaussian = "shape { dim: 4 dim: 5 } data_filler { type: 'gaussian' mean: 10 std: 2 }";

at::Tensor drawn(std::string_view settings, const ForwardContext& context) {
  return tops_of(dummy("top: 'x'", settings), {}, Phase::kTrain, context)[0];
}

TEST(DummyData, IsDrawnAnewInEachPassAndTheSameForTheSameRecords) {
  const ForwardContext first{.iteration = 0, .first_record = 0, .records = 4};
  const ForwardContext second{.iteration = 1, .first_record = 4, .records = 4};
  EXPECT_TRUE(drawn(kGaussian, first).equal(drawn(kGaussian, first)));
  EXPECT_FALSE(drawn(kGaussian, first).equal(drawn(kGaussian, second)));
  const Made made = make_layer(dummy("top: 'x' top: 'y'", kGaussian), {});
  const std::vector<at::Tensor> both = made.layer->forward(first, {});
  EXPECT_FALSE(both[0].equal(both[1]));
}

TEST(DummyData, HasTheDistributionOfItsFiller) {
  const std::vector<double> values =
      values_of(drawn("shape { dim: 50 dim: 400 } data_filler { type: 'gaussian' mean: 10 std: 2 }", {.records = 50}));
  double sum = 0;
  double squares = 0;
  for (const double value : values) sum += value;
  const double mean = sum / 20000;
  for (const double value : values) squares += (value - mean) * (value - mean);
  // The deviation of the mean is 0.014, that of the deviation 0.01.
  EXPECT_NEAR(mean, 10, 0.07);
  EXPECT_NEAR(std::sqrt(squares / 20000), 2, 0.05);
}

TEST(DummyData, IsOnManyWorkersWhatItIsOnOne) {
  // Fans and sparseness that depend on the number of records, which is that of the global batch.
  for (const std::string_view filler :
       {"type: 'gaussian'", "type: 'uniform' min: -1 max: 2", "type: 'xavier'", "type: 'xavier' variance_norm: FAN_OUT",
        "type: 'msra' variance_norm: AVERAGE", "type: 'positive_unitball'", "type: 'gaussian' sparse: 2"}) {
    SCOPED_TRACE(filler);
    const auto batch = [&](int records, std::uint64_t first) {
      return drawn(
          base::concat("shape { dim: ", records, " dim: 3 dim: 5 } data_filler { ", filler, " }"),
          {.iteration = 2, .first_record = first, .records = static_cast<std::uint64_t>(records), .record_stride = 8});
    };
    EXPECT_TRUE(at::cat({batch(2, 16), batch(2, 18), batch(2, 20), batch(2, 22)}).equal(batch(8, 16)));
  }
}

TEST(DummyData, FillsEachRecordOfAUnitBall) {
  const at::Tensor x = drawn("shape { dim: 3 dim: 4 } data_filler { type: 'positive_unitball' }", {.records = 3});
  expect_near(x.sum(1), {1, 1, 1}, 1e-12);
}

TEST(DummyData, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(dummy("top: 'x' top: 'y' top: 'z'", "shape { dim: 1 } shape { dim: 1 }"), {}),
            "net.prototxt:2:20: layer \"d\" (DummyData) has 2 shape for 3 tops; give one for all, or one each");
  EXPECT_EQ(setup_error(dummy("top: 'x'", ""), {}),
            "net.prototxt:2:1: layer \"d\" (DummyData) has 0 shape for 1 tops; give one for all, or one each");
  EXPECT_EQ(setup_error(dummy("top: 'x'", "num: 1 channels: 1 height: 1"), {}),
            "net.prototxt:2:1: layer \"d\" (DummyData) has 0 width for 1 tops; give one for all, or one each");
  EXPECT_EQ(setup_error(dummy("top: 'x'", "num: 1 shape { dim: 1 }"), {}),
            "net.prototxt:2:27: layer \"d\" (DummyData) has shape, and num, channels, height or width, an older way to "
            "say it");
  EXPECT_EQ(setup_error(dummy("top: 'x'", "shape { dim: 2 dim: -3 }"), {}),
            "net.prototxt:2:35: layer \"d\" (DummyData) has an extent of -3; it must be at least 1");
  EXPECT_EQ(setup_error(dummy("top: 'x'", "shape { dim: 1 } data_filler { } data_filler { }"), {}),
            "net.prototxt:2:37: layer \"d\" (DummyData) has 2 data_filler for 1 tops; give one for all, or one each");
  EXPECT_EQ(setup_error(dummy("top: 'x'", "shape { dim: 2 } data_filler { type: 'bilinear' }"), {}),
            "net.prototxt:1:1: layer \"d\" (DummyData) cannot be filled: a bilinear filler wants a square kernel of 4 "
            "axes, this array is [2]");
}

constexpr std::string_view kParameter =
    "name: 'p' type: 'Parameter' top: 'x' parameter_param { shape { dim: 2 dim: 3 } }";

TEST(ParameterLayer, IsAnArrayThatStartsAtZero) {
  Made made = make_layer(kParameter, {});
  EXPECT_EQ(made.tops[0], (Shape{2, 3}));
  ASSERT_EQ(made.layer->parameters().size(), 1u);
  EXPECT_EQ(made.layer->parameters()[0].name, "p.value");
  EXPECT_EQ(made.layer->parameters()[0].shape, (Shape{2, 3}));
  expect_near(made.layer->forward({}, {})[0], {0, 0, 0, 0, 0, 0}, 0);
  made.layer->parameters()[0].value = tensor_of({1, 2, 3, 4, 5, 6}, {2, 3});
  expect_near(made.layer->forward({}, {})[0], {1, 2, 3, 4, 5, 6}, 0);
}

TEST(ParameterLayer, HasTheGradientsOfFiniteDifferences) {
  expect_gradients_of(kParameter, {}, {});
}

TEST(ParameterLayer, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error("name: 'p' type: 'Parameter' top: 'x'\nparameter_param { shape { dim: 0 } }", {}),
            "net.prototxt:2:27: layer \"p\" (Parameter) has dim 0; it must be at least 1");
}

}  // namespace
}  // namespace poseidon::caffe
