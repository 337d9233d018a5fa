#include <algorithm>
#include <limits>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string spp(std::string_view settings) {
  return base::concat("name: 's' type: 'SPP' bottom: 'x' top: 'y'\nspp_param { ", settings, " }");
}

// The bins of a level along one axis: from where to where in the image, and how many places they count for AVE.
struct Bin {
  std::int64_t begin, end, places;
};
std::vector<Bin> bins_of(std::int64_t extent, std::int64_t level) {
  const std::int64_t wanted = std::int64_t{1} << level;
  const std::int64_t kernel = (extent + wanted - 1) / wanted;
  const std::int64_t pad = (kernel * wanted - extent + 1) / 2;
  std::vector<Bin> bins;
  // Rounded up, so until one has reached the end of the padded image, unless the next begins behind the far padding's
  // start.
  for (std::int64_t begin = -pad;; begin += kernel) {
    if (!bins.empty() && (begin >= extent || begin + pad >= extent + 2 * pad)) break;
    const std::int64_t end = begin + kernel;
    bins.push_back({std::max<std::int64_t>(begin, 0), std::min(end, extent), std::min(end, extent + pad) - begin});
  }
  return bins;
}

std::vector<double> naive(const at::Tensor& image, std::int64_t levels, bool max) {
  const auto x = image.accessor<double, 4>();
  std::vector<double> values;
  for (std::int64_t n = 0; n < image.size(0); ++n) {
    for (std::int64_t level = 0; level < levels; ++level) {
      for (std::int64_t c = 0; c < image.size(1); ++c) {
        for (const Bin& rows : bins_of(image.size(2), level)) {
          for (const Bin& columns : bins_of(image.size(3), level)) {
            double most = -std::numeric_limits<double>::infinity();
            double sum = 0;
            for (std::int64_t row = rows.begin; row < rows.end; ++row) {
              for (std::int64_t column = columns.begin; column < columns.end; ++column) {
                most = std::max(most, x[n][c][row][column]);
                sum += x[n][c][row][column];
              }
            }
            values.push_back(max ? most : sum / static_cast<double>(rows.places * columns.places));
          }
        }
      }
    }
  }
  return values;
}

TEST(Spp, PoolsIntoAPyramidOfBins) {
  std::mt19937_64 random(1);
  for (const Shape& shape : {Shape{2, 3, 8, 8}, Shape{1, 2, 7, 12}, Shape{2, 1, 15, 14}, Shape{1, 1, 4, 6}}) {
    const at::Tensor image = distinct_tensor(shape, random);
    for (const std::int64_t levels : {2, 3}) {
      for (const bool max : {true, false}) {
        const std::string text = spp(base::concat("pyramid_height: ", levels, " pool: ", max ? "MAX" : "AVE"));
        SCOPED_TRACE(text + " of " + base::readable_shape(shape));
        const at::Tensor top = tops_of(text, {image})[0];
        // All these images fill every bin.
        EXPECT_EQ(top.sizes().vec(), (Shape{shape[0], shape[1] * (levels == 2 ? 5 : 21)}));
        expect_near(top, naive(image, levels, max), 1e-12);
      }
    }
  }
}

TEST(Spp, KeepsTheAxesOfAPyramidOfOneLevel) {
  const at::Tensor image = tensor_of({1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6}, {1, 2, 2, 3});
  const at::Tensor top = tops_of(spp("pyramid_height: 1"), {image})[0];
  EXPECT_EQ(top.sizes().vec(), (Shape{1, 2, 1, 1}));
  expect_near(top, {6, -1}, 0);
}

TEST(Spp, PoolsStochasticallyWhereBinsDivideTheImage) {
  std::mt19937_64 random(2);
  const at::Tensor image = random_tensor({1, 1, 4, 4}, random).abs();
  const std::string text = spp("pyramid_height: 3 pool: STOCHASTIC");
  const std::vector<double> drawn = values_of(tops_of(text, {image})[0]);
  const std::vector<double> pixels = values_of(image);
  ASSERT_EQ(drawn.size(), 21u);
  for (const double value : drawn) EXPECT_EQ(std::count(pixels.begin(), pixels.end(), value), 1);
  // On the third level each pixel is a bin.
  EXPECT_EQ(std::vector<double>(drawn.end() - 16, drawn.end()), pixels);
  double sum = 0;
  double squares = 0;
  for (const double pixel : pixels) {
    sum += pixel;
    squares += pixel * pixel;
  }
  EXPECT_NEAR(values_of(tops_of(text, {image}, Phase::kTest)[0])[0], squares / sum, 1e-12);
}

TEST(Spp, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(3);
  for (const std::string_view pool : {"MAX", "AVE"}) {
    expect_gradients_of(spp(base::concat("pyramid_height: 3 pool: ", pool)), {distinct_tensor({2, 2, 7, 6}, random)},
                        {0});
  }
  expect_gradients_of(spp("pyramid_height: 2 pool: STOCHASTIC"), {distinct_tensor({2, 2, 4, 6}, random).abs() + 0.1},
                      {0}, {.records = 2});
}

TEST(Spp, ExplainsWhatIsWrong) {
  EXPECT_EQ(setup_error(spp(""), {{1, 1, 4, 4}}),
            "net.prototxt:2:1: layer \"s\" (SPP) needs pyramid_height, from 1 to 16; it is 0");
  EXPECT_EQ(setup_error(spp("pyramid_height: 2"), {{1, 4, 4}}),
            "net.prototxt:1:1: layer \"s\" (SPP) wants images [records, channels, height, width]; bottom \"x\" is "
            "[1, 4, 4]");
  EXPECT_EQ(setup_error(spp("pyramid_height: 3"), {{1, 1, 8, 5}}),
            "net.prototxt:2:13: layer \"s\" (SPP) has a level of 4 bins, too many for 5 columns: windows of 2 would "
            "need a padding of 2; bottom \"x\" is [1, 1, 8, 5]");
  EXPECT_EQ(setup_error(spp("pyramid_height: 2 pool: STOCHASTIC"), {{1, 1, 4, 5}}),
            "net.prototxt:2:31: layer \"s\" (SPP) has pool STOCHASTIC, which cannot pad, and 2 bins that do not divide "
            "the image; bottom \"x\" is [1, 1, 4, 5]");
}

}  // namespace
}  // namespace poseidon::caffe
