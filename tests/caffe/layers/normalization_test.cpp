// BatchNorm, LRN and MVN.
#include <cmath>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string layer_text(std::string_view type, std::string_view settings = "") {
  return base::concat("name: 'n' type: '", type, "' bottom: 'x' top: 'y' ", settings);
}

struct Moments {
  double mean = 0;
  double variance = 0;  // the mean square of what is left
};

Moments moments_of(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  Moments moments;
  for (const double value : values) moments.mean += value / count;
  for (const double value : values) moments.variance += (value - moments.mean) * (value - moments.mean) / count;
  return moments;
}

// The values of a channel, of x [records, channels, inner].
std::vector<double> channel_of(const std::vector<double>& x, std::size_t channels, std::size_t inner,
                               std::size_t channel) {
  std::vector<double> values;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i / inner % channels == channel) values.push_back(x[i]);
  }
  return values;
}

void set_averages(Layer& layer, const std::vector<double>& mean, const std::vector<double>& variance, double weight) {
  const auto channels = static_cast<std::int64_t>(mean.size());
  layer.parameters()[0].value.copy_(tensor_of(mean, {channels}));
  layer.parameters()[1].value.copy_(tensor_of(variance, {channels}));
  layer.parameters()[2].value.fill_(weight);
}

TEST(BatchNorm, NormalizesEachChannelWithItsBatch) {
  std::mt19937_64 random(1);
  for (const auto& [shape, channels, inner] : {std::tuple<Shape, std::size_t, std::size_t>{{3, 2, 2, 2}, 2, 4},
                                               {{5, 3}, 3, 1},
                                               {{2, 3, 4}, 3, 4},
                                               {{6}, 1, 1}}) {
    SCOPED_TRACE(base::readable_shape(shape));
    Made made = make_layer(layer_text("BatchNorm", "batch_norm_param { eps: 0.25 }"), {shape});
    EXPECT_EQ(made.tops, std::vector<Shape>{shape});
    const at::Tensor x = random_tensor(shape, random);
    const std::vector<double> values = values_of(x);
    std::vector<double> wanted;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const Moments moments = moments_of(channel_of(values, channels, inner, i / inner % channels));
      wanted.push_back((values[i] - moments.mean) / std::sqrt(moments.variance + 0.25));
    }
    expect_near(made.layer->forward({}, {x})[0], wanted, 1e-12);
  }
}

TEST(BatchNorm, KeepsWeightedSumsOfMeansAndVariancesAsCaffesBlobs) {
  Made made = make_layer(layer_text("BatchNorm", "batch_norm_param { moving_average_fraction: 0.5 }"), {{3, 1}});
  const std::vector<Parameter>& arrays = made.layer->parameters();
  ASSERT_EQ(arrays.size(), 3u);
  for (const Parameter& array : arrays) EXPECT_EQ(values_of(array.value), std::vector<double>{0});
  // Means 2 and 4; squares 1 + 0 + 1 and 4 + 0 + 4, over 3 - 1.
  made.layer->forward({}, {tensor_of({1, 2, 3}, {3, 1})});
  EXPECT_NEAR(values_of(arrays[0].value)[0], 2, 1e-12);
  EXPECT_NEAR(values_of(arrays[1].value)[0], 1, 1e-12);
  EXPECT_NEAR(values_of(arrays[2].value)[0], 1, 1e-12);
  made.layer->forward({}, {tensor_of({2, 4, 6}, {3, 1})});
  EXPECT_NEAR(values_of(arrays[0].value)[0], 0.5 * 2 + 4, 1e-12);
  EXPECT_NEAR(values_of(arrays[1].value)[0], 0.5 * 1 + 4, 1e-12);
  EXPECT_NEAR(values_of(arrays[2].value)[0], 1.5, 1e-12);
}

TEST(BatchNorm, CountsNoVarianceOfASingleValue) {
  Made made = make_layer(layer_text("BatchNorm"), {{1, 2}});
  expect_near(made.layer->forward({}, {tensor_of({3, 4}, {1, 2})})[0], {0, 0}, 1e-12);
  expect_near(made.layer->parameters()[0].value, {3, 4}, 1e-12);
  expect_near(made.layer->parameters()[1].value, {0, 0}, 0);
}

TEST(BatchNorm, NormalizesWithTheAveragesInTestingOrOnRequest) {
  const auto normalized = [](Phase phase, std::string_view settings) {
    Made made = make_layer(layer_text("BatchNorm", base::concat("batch_norm_param { eps: 0.5 ", settings, " }")),
                           {{2, 2}}, at::kDouble, phase);
    set_averages(*made.layer, {4, -2}, {7, 15}, 2);  // means 2 and -1, variances 3.5 and 7.5
    const std::vector<double> top = values_of(made.layer->forward({}, {tensor_of({4, 1, 0, 2}, {2, 2})})[0]);
    expect_near(made.layer->parameters()[2].value,
                {settings == "use_global_stats: false" && phase == Phase::kTrain ? 2.998 : 2}, 1e-12);
    return top;
  };
  const double second = std::sqrt(8);
  const std::vector<double> by_averages = {1, 2 / second, -1, 3 / second};
  const std::vector<double> by_batch = {2 / std::sqrt(4.5), -0.5 / std::sqrt(0.75), -2 / std::sqrt(4.5),
                                        0.5 / std::sqrt(0.75)};
  const auto expect_equal = [](const std::vector<double>& actual, const std::vector<double>& wanted) {
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(actual[i], wanted[i], 1e-12);
  };
  expect_equal(normalized(Phase::kTest, ""), by_averages);
  expect_equal(normalized(Phase::kTrain, "use_global_stats: true"), by_averages);
  expect_equal(normalized(Phase::kTrain, "use_global_stats: false"), by_batch);
  expect_equal(normalized(Phase::kTest, "use_global_stats: false"), by_batch);
}

TEST(BatchNorm, DividesByTheRootOfEpsWhereItHasSeenNothing) {
  Made made =
      make_layer(layer_text("BatchNorm", "batch_norm_param { eps: 0.25 }"), {{1, 2}}, at::kDouble, Phase::kTest);
  expect_near(made.layer->forward({}, {tensor_of({3, -1}, {1, 2})})[0], {6, -2}, 1e-12);
}

TEST(BatchNorm, HasArraysThatNoSolverTrains) {
  const Made made =
      make_layer(layer_text("BatchNorm", "param { lr_mult: 1 } param { lr_mult: 1 } param { lr_mult: 1 }"), {{2, 3}});
  for (const Parameter& array : made.layer->parameters()) {
    EXPECT_EQ(array.lr_mult, 0);
    EXPECT_FALSE(array.value.requires_grad());
  }
  EXPECT_EQ(made.layer->parameters()[0].name, "n.mean");
  EXPECT_EQ(made.layer->parameters()[1].shape, (Shape{3}));
  EXPECT_EQ(made.layer->parameters()[2].shape, (Shape{1}));
}

TEST(BatchNorm, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(2);
  for (const std::string_view settings :
       {"", "batch_norm_param { eps: 0.1 }", "batch_norm_param { use_global_stats: true }"}) {
    for (const Shape& shape : {Shape{3, 2, 2, 2}, Shape{4, 3}, Shape{6}}) {
      SCOPED_TRACE(settings);
      Made made = make_layer(layer_text("BatchNorm", settings), {shape});
      made.layer->parameters()[1].value.fill_(1.5);
      made.layer->parameters()[2].value.fill_(2);
      expect_gradients(*made.layer, {random_tensor(shape, random)}, {0});
    }
  }
}

TEST(BatchNorm, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(layer_text("BatchNorm", "batch_norm_param {\nmoving_average_fraction: 1.5 }"), {{2, 2}}),
            "net.prototxt:2:1: layer \"n\" (BatchNorm) has moving_average_fraction 1.5; it must be from 0 to 1");
  EXPECT_EQ(setup_error(layer_text("BatchNorm", "batch_norm_param {\neps: -1 }"), {{2, 2}}),
            "net.prototxt:2:1: layer \"n\" (BatchNorm) has eps -1; it must not be negative");
  EXPECT_NE(setup_error(layer_text("BatchNorm"), {{}}).find("wants at least one axis"), std::string::npos);
}

struct Response {
  std::int64_t size;
  bool across;
  double k, alpha, beta;
};

std::string text_of(const Response& r) {
  return layer_text("LRN", base::concat("lrn_param { local_size: ", r.size, " k: ", r.k, " alpha: ", r.alpha,
                                        " beta: ", r.beta, r.across ? "" : " norm_region: WITHIN_CHANNEL", " }"));
}

// The definition, in plain loops: k is 1 within channels.
std::vector<double> naive(const at::Tensor& image, const Response& r) {
  const auto x = image.accessor<double, 4>();
  const std::int64_t half = r.size / 2;
  const auto inside = [](std::int64_t i, std::int64_t extent) { return i >= 0 && i < extent; };
  std::vector<double> out;
  for (std::int64_t n = 0; n < image.size(0); ++n) {
    for (std::int64_t c = 0; c < image.size(1); ++c) {
      for (std::int64_t row = 0; row < image.size(2); ++row) {
        for (std::int64_t column = 0; column < image.size(3); ++column) {
          double sum = 0;
          for (std::int64_t i = -half; i <= half; ++i) {
            if (r.across) {
              if (inside(c + i, image.size(1))) sum += x[n][c + i][row][column] * x[n][c + i][row][column];
              continue;
            }
            for (std::int64_t j = -half; j <= half; ++j) {
              if (!inside(row + i, image.size(2)) || !inside(column + j, image.size(3))) continue;
              sum += x[n][c][row + i][column + j] * x[n][c][row + i][column + j];
            }
          }
          const auto count = static_cast<double>(r.across ? r.size : r.size * r.size);
          out.push_back(x[n][c][row][column] / std::pow((r.across ? r.k : 1) + r.alpha / count * sum, r.beta));
        }
      }
    }
  }
  return out;
}

TEST(Lrn, DividesByTheSizeOfItsNeighbours) {
  // Three channels of one pixel: 2 / (1 + (1 + 4 + 9) / 3)^0.75 in the middle.
  Made made = make_layer(layer_text("LRN", "lrn_param { local_size: 3 }"), {{1, 3, 1, 1}});
  expect_near(made.layer->forward({}, {tensor_of({1, 2, 3}, {1, 3, 1, 1})})[0],
              {std::pow(1 + 5.0 / 3, -0.75), 2 * std::pow(1 + 14.0 / 3, -0.75), 3 * std::pow(1 + 13.0 / 3, -0.75)},
              1e-12);
}

TEST(Lrn, AgreesWithPlainLoopsForRandomShapes) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 40; ++trial) {
    const Response r{.size = 2 * pick(random, 0, 3) + 1,
                     .across = pick(random, 0, 1) == 1,
                     .k = 0.5 * static_cast<double>(pick(random, 1, 4)),
                     .alpha = 0.25 * static_cast<double>(pick(random, 0, 8)),
                     .beta = 0.25 * static_cast<double>(pick(random, 1, 8))};
    const Shape shape = {pick(random, 1, 3), pick(random, 1, 6), pick(random, 1, 5), pick(random, 1, 5)};
    SCOPED_TRACE(text_of(r) + " of " + base::readable_shape(shape));
    const at::Tensor x = random_tensor(shape, random);
    Made made = make_layer(text_of(r), {shape});
    EXPECT_EQ(made.tops, std::vector<Shape>{shape});
    expect_near(made.layer->forward({}, {x})[0], naive(x, r), 1e-12);
    if (HasFailure()) return;
  }
}

TEST(Lrn, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(4);
  for (const bool across : {true, false}) {
    for (const std::int64_t size : {1, 3, 5}) {
      const Response r{.size = size, .across = across, .k = 2, .alpha = 0.5, .beta = 0.75};
      SCOPED_TRACE(text_of(r));
      Made made = make_layer(text_of(r), {{2, 4, 3, 2}});
      expect_gradients(*made.layer, {random_tensor({2, 4, 3, 2}, random)}, {0});
    }
  }
}

TEST(Lrn, ExplainsWhatIsWrong) {
  EXPECT_EQ(
      setup_error(layer_text("LRN", "lrn_param {\nlocal_size: 4 }"), {{1, 3, 2, 2}}),
      "net.prototxt:2:1: layer \"n\" (LRN) has local_size 4; it must be odd, so that it has a middle, and below 2^31");
  EXPECT_EQ(
      setup_error(layer_text("LRN"), {{1, 3, 2}}),
      "net.prototxt:1:1: layer \"n\" (LRN) wants images [records, channels, height, width]; bottom \"x\" is [1, 3, 2]");
}

TEST(Mvn, BringsEachChannelOfARecordToMeanZeroAndDeviationOne) {
  std::mt19937_64 random(5);
  const at::Tensor x = random_tensor({2, 3, 2, 4}, random);
  const std::vector<double> values = values_of(x);
  const auto wanted = [&](std::size_t row, bool scales, double eps) {
    std::vector<double> all;
    for (std::size_t first = 0; first < values.size(); first += row) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first);
      const Moments moments = moments_of({begin, begin + static_cast<std::ptrdiff_t>(row)});
      for (std::size_t i = 0; i < row; ++i) {
        all.push_back((values[first + i] - moments.mean) / (scales ? std::sqrt(moments.variance) + eps : 1));
      }
    }
    return all;
  };
  const auto top = [&](std::string_view settings) {
    return make_layer(layer_text("MVN", base::concat("mvn_param { ", settings, " }")), {{2, 3, 2, 4}})
        .layer->forward({}, {x})[0];
  };
  expect_near(top(""), wanted(8, true, 1e-9), 1e-12);
  expect_near(top("eps: 0.5"), wanted(8, true, 0.5), 1e-12);
  expect_near(top("across_channels: true"), wanted(24, true, 1e-9), 1e-12);
  expect_near(top("normalize_variance: false"), wanted(8, false, 0), 1e-12);
  expect_near(top("normalize_variance: false across_channels: true"), wanted(24, false, 0), 1e-12);
}

TEST(Mvn, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(6);
  for (const std::string_view settings :
       {"", "across_channels: true", "normalize_variance: false", "normalize_variance: false across_channels: true"}) {
    SCOPED_TRACE(settings);
    Made made = make_layer(layer_text("MVN", base::concat("mvn_param { ", settings, " }")), {{2, 3, 2, 2}});
    expect_gradients(*made.layer, {random_tensor({2, 3, 2, 2}, random)}, {0});
  }
}

TEST(Mvn, HasCaffesGradientWhereEpsIsLarge) {
  // (g - mean g - y mean(g y)) / (deviation + eps), with g = (1, 0, 0, 0) and the values' deviation 1.
  Made made = make_layer(layer_text("MVN", "mvn_param { eps: 0.5 }"), {{1, 1, 4}});
  const at::Tensor x = tensor_of({1, 1, -1, -1}, {1, 1, 4}).requires_grad_();
  made.layer->forward({}, {x})[0].flatten()[0].backward();
  const double y = 1 / 1.5;
  const double mean = y / 4;  // of g y
  expect_near(x.grad(),
              {(0.75 - y * mean) / 1.5, (-0.25 - y * mean) / 1.5, (-0.25 + y * mean) / 1.5, (-0.25 + y * mean) / 1.5},
              1e-12);
}

TEST(Mvn, IsZeroWithAFiniteGradientWhereNothingVaries) {
  Made made = make_layer(layer_text("MVN"), {{1, 1, 2}});
  const at::Tensor x = tensor_of({3, 3}, {1, 1, 2}).requires_grad_();
  const at::Tensor y = made.layer->forward({}, {x})[0];
  expect_near(y, {0, 0}, 0);
  y.flatten()[0].backward();
  // (1 - 1/2) / 1e-9 and (0 - 1/2) / 1e-9.
  expect_near(x.grad(), {5e8, -5e8}, 1e-3);
}

}  // namespace
}  // namespace poseidon::caffe
