#include "engines/caffe/layers/filler.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <numeric>

#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using testing::error_of;
using testing::expect_near;
using testing::values_of;

const base::RandomStream kStream(7, "conv1.weight");

std::vector<double> drawn(const Filler& filler, const Shape& shape) {
  return values_of(filled(filler, shape, at::kDouble, kStream));
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return most;
}

TEST(Filler, ConstantIsItsValue) {
  EXPECT_EQ(drawn({.kind = Filler::Kind::kConstant, .value = 0.25}, {2, 3}), std::vector<double>(6, 0.25));
}

TEST(Filler, UniformTakesOneWordOfTheStreamPerElement) {
  const std::vector<double> values = drawn({.kind = Filler::Kind::kUniform, .min = -1, .max = 3}, {3, 2});
  for (std::uint32_t i = 0; i < 6; ++i) {
    const double uniform = kStream.words(0, 0, i / 4)[i % 4] / 4294967296.0;
    EXPECT_DOUBLE_EQ(values[i], -1 + 4 * uniform);
  }
}

TEST(Filler, GaussianHasItsMeanAndDeviation) {
  // 100,000 draws: the mean's own deviation is 0.0016, that of the deviation 0.0011; five of each are allowed.
  const std::vector<double> values = drawn({.kind = Filler::Kind::kGaussian, .mean = 2, .std = 0.5}, {100, 1000});
  EXPECT_NEAR(mean_of(values), 2, 0.008);
  EXPECT_NEAR(deviation_of(values), 0.5, 0.006);
  // A twentieth of a normal distribution lies beyond 1.96 deviations.
  double beyond = 0;
  for (const double value : values) beyond += std::abs(value - 2) > 0.98 ? 1 : 0;
  EXPECT_NEAR(beyond / 1e5, 0.05, 0.004);
}

TEST(Filler, SparseGaussianKeepsThatManyInputsPerOutputOnAverage) {
  const std::vector<double> values = drawn({.kind = Filler::Kind::kGaussian, .std = 1, .sparse = 15}, {100, 1000});
  double kept = 0;
  for (const double value : values) kept += value != 0 ? 1 : 0;
  // Each of 100,000 is kept with probability 15/100; the deviation of the count is 113.
  EXPECT_NEAR(kept, 15000, 600);
}

TEST(Filler, PositiveUnitBallSumsToOneForEachOutput) {
  const std::vector<double> values = drawn({.kind = Filler::Kind::kPositiveUnitBall}, {3, 5, 2});
  for (std::size_t output = 0; output < 3; ++output) {
    double sum = 0;
    for (std::size_t i = 0; i < 10; ++i) sum += values[output * 10 + i];
    EXPECT_NEAR(sum, 1, 1e-12);
  }
  for (const double value : values) EXPECT_GE(value, 0);
}

TEST(Filler, XavierReachesUpToTheRootOfThreeByN) {
  // [20, 12, 5, 5]: fan in 12·25 = 300, fan out 20·25 = 500, average 400.
  const Shape shape = {20, 12, 5, 5};
  const auto bound = [&](Filler::Norm norm) {
    return largest(drawn({.kind = Filler::Kind::kXavier, .norm = norm}, shape));
  };
  EXPECT_NEAR(bound(Filler::Norm::kFanIn), 0.1, 1e-4);
  EXPECT_NEAR(bound(Filler::Norm::kFanOut), std::sqrt(0.006), 1e-4);
  EXPECT_NEAR(bound(Filler::Norm::kAverage), std::sqrt(0.0075), 1e-4);
}

TEST(Filler, MsraHasTheVarianceTwoByN) {
  const std::vector<double> values = drawn({.kind = Filler::Kind::kMsra}, {100, 800});
  EXPECT_NEAR(mean_of(values), 0, 0.001);
  EXPECT_NEAR(deviation_of(values), 0.05, 0.001);
}

TEST(Filler, BilinearIsTheOuterProductOfTriangles) {
  const Filler filler{.kind = Filler::Kind::kBilinear};
  expect_near(filled(filler, {1, 1, 4, 4}, at::kDouble, kStream),
              {0.0625, 0.1875, 0.1875, 0.0625, 0.1875, 0.5625, 0.5625, 0.1875,  //
               0.1875, 0.5625, 0.5625, 0.1875, 0.0625, 0.1875, 0.1875, 0.0625},
              1e-12);
  expect_near(filled(filler, {1, 1, 3, 3}, at::kDouble, kStream), {0.25, 0.5, 0.25, 0.5, 1, 0.5, 0.25, 0.5, 0.25},
              1e-12);
  EXPECT_NE(error_of([&] {
              static_cast<void>(filled(filler, {1, 1, 3, 4}, at::kDouble, kStream));
            }).find("[1, 1, 3, 4]"),
            std::string::npos);
}

TEST(Filler, DrawsTheSameOnAnyNumberOfThreads) {
  const Filler filler{.kind = Filler::Kind::kGaussian};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const std::vector<double> on_one = drawn(filler, {100001});
  at::set_num_threads(3);
  const std::vector<double> on_three = drawn(filler, {100001});
  at::set_num_threads(threads);
  EXPECT_EQ(on_one, on_three);
}

TEST(Filler, StartsAFloatNetWhereItsDoubleTwinStarts) {
  const Filler filler{.kind = Filler::Kind::kXavier};
  const std::vector<double> wide = drawn(filler, {4, 9});
  const std::vector<double> narrow = values_of(filled(filler, {4, 9}, at::kFloat, kStream));
  for (std::size_t i = 0; i < wide.size(); ++i) EXPECT_EQ(narrow[i], static_cast<float>(wide[i]));
}

TEST(Filler, NamesThePositionAndNearMatchesOfAnUnknownType) {
  const proto::Message message = proto::parse_text("std: 0.1\ntype: \"xaver\"", "FillerParameter", "net.prototxt");
  const std::string error = error_of([&] { static_cast<void>(read_filler(message)); });
  EXPECT_NE(error.find("net.prototxt:2:"), std::string::npos) << error;
  EXPECT_NE(error.find("did you mean xavier?"), std::string::npos) << error;
}

TEST(Filler, ReadsItsSettings) {
  const Filler filler = read_filler(
      proto::parse_text("type: 'msra' variance_norm: AVERAGE mean: 0.5 std: 2 sparse: 3 min: -1 max: 4 value: 9",
                        "FillerParameter", "f"));
  EXPECT_EQ(filler.kind, Filler::Kind::kMsra);
  EXPECT_EQ(filler.norm, Filler::Norm::kAverage);
  EXPECT_EQ(filler.mean, 0.5);
  EXPECT_EQ(filler.std, 2);
  EXPECT_EQ(filler.sparse, 3);
  EXPECT_EQ(filler.min, -1);
  EXPECT_EQ(filler.max, 4);
  EXPECT_EQ(filler.value, 9);
}

}  // namespace
}  // namespace poseidon::caffe
