#include <ATen/ops/cat.h>

#include <algorithm>
#include <limits>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

struct Axis {
  std::int64_t kernel, stride, pad;
};
struct Pooled {
  bool max;
  bool ceil;
  Axis h, w;
};

// Caffe's size along one axis, by trying windows: each next one is taken while it starts inside the image with the
// padding before it, and while either the last did not reach the end of the padded image (rounding up) or this one fits
// into it (rounding down).
std::int64_t size_along(std::int64_t extent, const Axis& axis, bool ceil) {
  std::int64_t count = 1;
  for (;; ++count) {
    const std::int64_t start = count * axis.stride;
    const std::int64_t last_end = (count - 1) * axis.stride + axis.kernel;
    const std::int64_t padded = extent + 2 * axis.pad;
    if (start >= extent + axis.pad) break;
    if (ceil ? last_end >= padded : start + axis.kernel > padded) break;
  }
  return count;
}

struct NaivePool {
  std::vector<double> values;
  std::vector<double> places;  // of MAX
};

NaivePool naive(const at::Tensor& image, const Pooled& p, const Shape& top) {
  const auto x = image.accessor<double, 4>();
  const std::int64_t height = image.size(2);
  const std::int64_t width = image.size(3);
  NaivePool out;
  for (std::int64_t n = 0; n < top[0]; ++n) {
    for (std::int64_t c = 0; c < top[1]; ++c) {
      for (std::int64_t y = 0; y < top[2]; ++y) {
        for (std::int64_t z = 0; z < top[3]; ++z) {
          double most = -std::numeric_limits<double>::infinity();
          double sum = 0;
          std::int64_t counted = 0;
          std::int64_t place = -1;
          for (std::int64_t row = y * p.h.stride - p.h.pad; row < y * p.h.stride - p.h.pad + p.h.kernel; ++row) {
            for (std::int64_t column = z * p.w.stride - p.w.pad; column < z * p.w.stride - p.w.pad + p.w.kernel;
                 ++column) {
              if (row < height + p.h.pad && column < width + p.w.pad) ++counted;
              if (row < 0 || column < 0 || row >= height || column >= width) continue;
              sum += x[n][c][row][column];
              if (x[n][c][row][column] > most) {
                most = x[n][c][row][column];
                place = row * width + column;
              }
            }
          }
          out.values.push_back(p.max ? most : sum / static_cast<double>(counted));
          out.places.push_back(static_cast<double>(place));
        }
      }
    }
  }
  return out;
}

std::string text_of(const Pooled& p, std::string_view tops) {
  return base::concat("name: 'p' type: 'Pooling' bottom: 'x' ", tops, " pooling_param { pool: ", p.max ? "MAX" : "AVE",
                      " round_mode: ", p.ceil ? "CEIL" : "FLOOR", " kernel_h: ", p.h.kernel, " kernel_w: ", p.w.kernel,
                      " stride_h: ", p.h.stride, " stride_w: ", p.w.stride, " pad_h: ", p.h.pad, " pad_w: ", p.w.pad,
                      " }");
}

Axis random_axis(std::mt19937_64& random) {
  const std::int64_t kernel = pick(random, 1, 5);
  return {.kernel = kernel, .stride = pick(random, 1, 4), .pad = pick(random, 0, kernel - 1)};
}

TEST(Pooling, AgreesWithPlainLoopsForRandomShapes) {
  std::mt19937_64 random(1);
  int padded_by_hand = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const Pooled p{.max = pick(random, 0, 1) == 1,
                   .ceil = pick(random, 0, 2) > 0,
                   .h = random_axis(random),
                   .w = random_axis(random)};
    const Shape bottom = {pick(random, 1, 2), pick(random, 1, 3), pick(random, 5, 12), pick(random, 5, 12)};
    SCOPED_TRACE(text_of(p, "top: 'y'") + " of " + base::readable_shape(bottom));
    const Shape top = {bottom[0], bottom[1], size_along(bottom[2], p.h, p.ceil), size_along(bottom[3], p.w, p.ceil)};
    Made made = make_layer(text_of(p, "top: 'y'"), {bottom});
    EXPECT_EQ(made.tops[0], top);
    const at::Tensor image = distinct_tensor(bottom, random);
    const NaivePool wanted = naive(image, p, top);
    const at::Tensor pooled = made.layer->forward({}, {image})[0];
    EXPECT_EQ(pooled.sizes().vec(), top);
    expect_near(pooled, wanted.values, 1e-12);
    if (p.max) {
      Made with_places = make_layer(text_of(p, "top: 'y' top: 'places'"), {bottom});
      expect_near(with_places.layer->forward({}, {image})[1], wanted.places, 0);
    }
    padded_by_hand += p.h.pad > p.h.kernel / 2 || p.w.pad > p.w.kernel / 2 ? 1 : 0;
    if (HasFailure()) return;
  }
  EXPECT_GT(padded_by_hand, 20);
}

TEST(Pooling, HasTheSizesOfCaffe) {
  const auto size = [](std::string_view settings, std::int64_t extent) {
    return make_layer(base::concat("name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { ", settings, " }"),
                      {{1, 1, extent, extent}})
        .tops[0][2];
  };
  // AlexNet's pool1 and GoogLeNet's pool1, where PyTorch's default would have 27 and 55.
  EXPECT_EQ(size("kernel_size: 3 stride: 2", 55), 27);
  EXPECT_EQ(size("kernel_size: 3 stride: 2", 112), 56);
  EXPECT_EQ(size("kernel_size: 3 stride: 2 round_mode: FLOOR", 112), 55);
  // Rounded up there would be 5 windows of stride 2, but the fifth would start at 8 - 1 = 7, behind the image of 7.
  EXPECT_EQ(size("kernel_size: 2 stride: 2 pad: 1", 7), 4);
}

TEST(Pooling, CountsPaddingIntoTheAverageAsCaffeDoes) {
  Made made = make_layer(
      "name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
      {{1, 1, 2, 2}});
  EXPECT_EQ(made.tops[0], (Shape{1, 1, 2, 2}));
  // The first window holds all four pixels of its nine places. The second starts at column 1 and is cut at the end of
  // the padded image, so 3 rows by 2 columns; the last is 2 by 2.
  expect_near(made.layer->forward({}, {tensor_of({1, 2, 3, 4}, {1, 1, 2, 2})})[0],
              {10.0 / 9, 6.0 / 6, 7.0 / 6, 4.0 / 4}, 1e-12);
}

TEST(Pooling, PoolsTheWholeImageOnRequest) {
  const at::Tensor image = tensor_of({1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6}, {1, 2, 2, 3});
  Made average =
      make_layer("name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { pool: AVE global_pooling: true }",
                 {{1, 2, 2, 3}});
  EXPECT_EQ(average.tops[0], (Shape{1, 2, 1, 1}));
  expect_near(average.layer->forward({}, {image})[0], {3.5, -3.5}, 1e-12);
  Made maximum = make_layer("name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { global_pooling: true }",
                            {{1, 2, 2, 3}});
  const at::Tensor most = maximum.layer->forward({}, {image})[0];
  EXPECT_EQ(most.sizes().vec(), (Shape{1, 2, 1, 1}));
  expect_near(most, {6, -1}, 0);
}

TEST(Pooling, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(3);
  for (const std::string_view settings :
       {"pool: MAX kernel_size: 3 stride: 2", "pool: MAX kernel_size: 2 stride: 1 pad: 1",
        "pool: MAX kernel_size: 4 pad: 3", "pool: AVE kernel_size: 3 stride: 2 pad: 1",
        "pool: AVE kernel_size: 4 pad: 3 stride: 3", "pool: AVE global_pooling: true", "pool: MAX global_pooling: true",
        "pool: AVE kernel_size: 2 stride: 2 round_mode: FLOOR"}) {
    SCOPED_TRACE(settings);
    Made made =
        make_layer(base::concat("name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { ", settings, " }"),
                   {{2, 2, 5, 5}});
    expect_gradients(*made.layer, {distinct_tensor({2, 2, 5, 5}, random)}, {0});
  }
}

std::string stochastic(std::string_view settings) {
  return base::concat("name: 'p' type: 'Pooling' bottom: 'x' top: 'y' pooling_param { pool: STOCHASTIC ", settings,
                      " }");
}

struct StochasticWindows {
  Axis h, w;
  bool ceil;
};

// Calls use(window's pixels row by row) for each window, in the order of the top's elements.
template <typename Use>
void for_each_window(const at::Tensor& image, const StochasticWindows& p, const Use& use) {
  const auto x = image.accessor<double, 4>();
  const std::int64_t rows = size_along(image.size(2), p.h, p.ceil);
  const std::int64_t columns = size_along(image.size(3), p.w, p.ceil);
  for (std::int64_t n = 0; n < image.size(0); ++n) {
    for (std::int64_t i = 0; i < image.size(1) * rows * columns; ++i) {
      const std::int64_t top = i / columns % rows * p.h.stride;
      const std::int64_t left = i % columns * p.w.stride;
      std::vector<double> pixels;
      for (std::int64_t row = top; row < std::min(top + p.h.kernel, image.size(2)); ++row) {
        for (std::int64_t column = left; column < std::min(left + p.w.kernel, image.size(3)); ++column) {
          pixels.push_back(x[n][i / rows / columns][row][column]);
        }
      }
      use(pixels, n, i);
    }
  }
}

// Zeiler and Fergus: the first pixel at which the running sum reaches a uniform share of the sum. Words of the stream
// stand for the share, one for each element of a record's top.
TEST(StochasticPooling, DrawsAPixelOfEachWindowInTraining) {
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 60; ++trial) {
    const auto axis = [&] { return Axis{.kernel = pick(random, 1, 4), .stride = pick(random, 1, 3), .pad = 0}; };
    const StochasticWindows p{.h = axis(), .w = axis(), .ceil = pick(random, 0, 1) == 1};
    const Shape bottom = {pick(random, 1, 2), pick(random, 1, 2), pick(random, 4, 7), pick(random, 4, 7)};
    const std::string text =
        stochastic(base::concat("round_mode: ", p.ceil ? "CEIL" : "FLOOR", " kernel_h: ", p.h.kernel,
                                " kernel_w: ", p.w.kernel, " stride_h: ", p.h.stride, " stride_w: ", p.w.stride));
    SCOPED_TRACE(text + " of " + base::readable_shape(bottom));
    // Behind a ReLU, as it is used: about half the pixels are zero.
    const at::Tensor image = random_tensor(bottom, random).clamp_min(0);
    const base::RandomStream stream(1, "p");
    std::vector<double> wanted;
    for_each_window(image, p, [&](const std::vector<double>& pixels, std::int64_t record, std::int64_t element) {
      const base::PhiloxCounter words =
          stream.words(7, 32 + static_cast<std::uint64_t>(record), static_cast<std::uint32_t>(element / 4));
      double sum = 0;
      for (const double pixel : pixels) sum += pixel;
      const double share = (words[static_cast<std::size_t>(element % 4)] + 0.5) / 4294967296.0 * sum;
      double running = 0;
      std::size_t chosen = 0;
      while (running += pixels[chosen], running < share) ++chosen;
      wanted.push_back(pixels[chosen]);
    });
    const ForwardContext context{.iteration = 7, .first_record = 32, .records = static_cast<std::uint64_t>(bottom[0])};
    expect_near(tops_of(text, {image}, Phase::kTrain, context)[0], wanted, 0);
    if (HasFailure()) return;
  }
}

TEST(StochasticPooling, WeighsPixelsByThemselvesInTesting) {
  std::mt19937_64 random(6);
  const StochasticWindows p{
      .h = {.kernel = 3, .stride = 2, .pad = 0}, .w = {.kernel = 2, .stride = 2, .pad = 0}, .ceil = true};
  const at::Tensor image = random_tensor({2, 3, 6, 7}, random).clamp_min(0);
  std::vector<double> wanted;
  for_each_window(image, p, [&](const std::vector<double>& pixels, std::int64_t, std::int64_t) {
    double sum = 0;
    double squares = 0;
    for (const double pixel : pixels) {
      sum += pixel;
      squares += pixel * pixel;
    }
    wanted.push_back(sum > 0 ? squares / sum : 0);
  });
  expect_near(tops_of(stochastic("kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 2"), {image}, Phase::kTest)[0], wanted,
              1e-12);
  expect_near(tops_of(stochastic("kernel_size: 2"), {image * 0}, Phase::kTest)[0],
              std::vector<double>(2 * 3 * 5 * 6, 0), 0);
}

TEST(StochasticPooling, DrawsOnManyWorkersWhatOneWorkerDraws) {
  std::mt19937_64 random(7);
  const at::Tensor image = random_tensor({6, 2, 5, 5}, random).abs();
  const auto pooled = [&](std::int64_t first, std::int64_t records) {
    return tops_of(stochastic("kernel_size: 3 stride: 2"), {image.narrow(0, first, records)}, Phase::kTrain,
                   {.iteration = 3,
                    .first_record = 60 + static_cast<std::uint64_t>(first),
                    .records = static_cast<std::uint64_t>(records)})[0];
  };
  EXPECT_TRUE(at::cat({pooled(0, 2), pooled(2, 2), pooled(4, 2)}).equal(pooled(0, 6)));
}

TEST(StochasticPooling, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(8);
  for (const std::string_view settings : {"kernel_size: 3 stride: 2", "kernel_size: 2", "global_pooling: true"}) {
    const at::Tensor image = random_tensor({2, 2, 5, 5}, random).abs() + 0.1;
    expect_gradients_of(stochastic(settings), {image}, {0}, {.iteration = 1, .first_record = 8, .records = 2});
    const Made made = make_layer(stochastic(settings), {{2, 2, 5, 5}}, at::kDouble, Phase::kTest);
    expect_gradients(*made.layer, {image.clone()}, {0});
  }
}

TEST(Pooling, ExplainsWhatIsWrong) {
  const auto error = [](std::string_view settings, const Shape& bottom) {
    return setup_error(
        base::concat("name: 'p' type: 'Pooling' bottom: 'x' top: 'y'\npooling_param {\n", settings, "\n}"), {bottom});
  };
  EXPECT_EQ(error("kernel_size: 3", {4, 5}),
            "net.prototxt:1:1: layer \"p\" (Pooling) wants images [records, channels, height, width]; bottom \"x\" is "
            "[4, 5]");
  EXPECT_EQ(error("pool: STOCHASTIC kernel_size: 2 pad: 1", {1, 1, 4, 4}),
            "net.prototxt:3:1: layer \"p\" (Pooling) has pool STOCHASTIC and a pad; only MAX and AVE can pad");
  EXPECT_EQ(error("kernel_size: 2 pad: 2", {1, 1, 4, 4}),
            "net.prototxt:2:1: layer \"p\" (Pooling) has a pad of 2 for a kernel of 2; it must be smaller");
  EXPECT_EQ(
      error("kernel_size: 9 pad: 2", {1, 1, 12, 4}),
      "net.prototxt:1:1: layer \"p\" (Pooling) has a kernel of 9 columns for an image of 8, padding included; bottom "
      "\"x\" is [1, 1, 12, 4]");
  EXPECT_EQ(error("stride: 2", {1, 1, 4, 4}),
            "net.prototxt:2:1: layer \"p\" (Pooling) has kernel_size 0x0; it must be at least 1");
  EXPECT_EQ(
      error("global_pooling: true kernel_size: 2", {1, 1, 4, 4}),
      "net.prototxt:3:1: layer \"p\" (Pooling) has global_pooling, whose kernel is the whole image, and a kernel size");
  EXPECT_EQ(error("global_pooling: true stride: 2", {1, 1, 4, 4}),
            "net.prototxt:3:1: layer \"p\" (Pooling) has global_pooling, which allows neither pad nor stride");
  EXPECT_NE(
      setup_error("name: 'p' type: 'Pooling' bottom: 'x' top: 'y' top: 'z' pooling_param { pool: AVE kernel_size: 2 }",
                  {{1, 1, 4, 4}})
          .find("wants 1 top and has 2"),
      std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe
