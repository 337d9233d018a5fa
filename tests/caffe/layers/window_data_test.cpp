#include <algorithm>

#include "base/text.h"
#include "caffe/data/data_bases.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/proto/blob_file.h"

namespace poseidon::caffe {
namespace {

using testing::expect_near;
using testing::Made;
using testing::make_layer;
using testing::values_of;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_pgm;

class WindowData : public ::testing::Test {
 protected:
  // a.pgm is 6 x 4, pixel (x, y) = 6 y + x; b.pgm is 4 x 4, pixel 100 + 4 y + x. Objects: in a from 1 1 to 2 2, of
  // class 3; in b from 0 0 to 3 3, of class 5. Background: in a from 4 0 to 5 1.
  void SetUp() override {
    ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
    write_pgm(folder_ / "a.pgm", 6, 4);
    write_pgm(folder_ / "b.pgm", 4, 4, 100);
    write_file(folder_ / "windows",
               "# 0\na.pgm\n3 4 6\n2\n3 0.9 1 1 2 2\n3 0.1 4 0 5 1\n# 1\nb.pgm\n3 4 4\n1\n5 1 0 0 3 3\n");
  }

  std::string text(int batch, std::string_view transform, std::string_view more = "") const {
    return base::concat("name: 'w' type: 'WindowData' top: 'data' top: 'label' transform_param { ", transform,
                        " }\nwindow_data_param { source: '", (folder_ / "windows").string(), "' root_folder: '",
                        folder_.path().string(), "/' batch_size: ", batch, " ", more, " }");
  }
  static std::vector<at::Tensor> pass(Layer& layer, std::uint64_t first, std::uint64_t stride) {
    return layer.forward({.first_record = first, .records = stride, .record_stride = stride}, {});
  }
  static std::vector<double> channel(const at::Tensor& data, std::int64_t record, std::int64_t c = 0) {
    return values_of(data[record][c]);
  }

  TemporaryFolder folder_;
};

TEST_F(WindowData, YieldsBackgroundThenObjectsInTheirShares) {
  Made made = make_layer(text(8, "crop_size: 2"), {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{8, 3, 2, 2}, {8}}));
  std::vector<double> objects;
  for (std::uint64_t first = 0; first < 320; first += 8) {
    const std::vector<at::Tensor> tops = pass(*made.layer, first, 8);
    const std::vector<double> labels = values_of(tops[1]);
    for (std::int64_t i = 0; i < 8; ++i) {
      const double label = labels[static_cast<std::size_t>(i)];
      if (i < 6) {  // int(8 x 0.25) objects
        EXPECT_EQ(label, 0);
        EXPECT_EQ(channel(tops[0], i), (std::vector<double>{4, 5, 10, 11}));
      } else {
        objects.push_back(label);
        if (label == 3) {
          EXPECT_EQ(channel(tops[0], i), (std::vector<double>{7, 8, 13, 14}));
        }
      }
    }
  }
  // 80 draws of two: each within five deviations of half.
  const auto threes = std::count(objects.begin(), objects.end(), 3.0);
  EXPECT_EQ(threes + std::count(objects.begin(), objects.end(), 5.0), 80);
  EXPECT_NEAR(static_cast<double>(threes), 40, 23);
}

TEST_F(WindowData, SubtractsTheMeanAndScales) {
  Made made =
      make_layer(text(1, "crop_size: 2 mean_value: 1 mean_value: 2 mean_value: 4", "scale: 0.5 fg_fraction: 0"), {});
  const at::Tensor data = pass(*made.layer, 0, 1)[0];
  EXPECT_EQ(channel(data, 0, 0), (std::vector<double>{1.5, 2, 4.5, 5}));
  EXPECT_EQ(channel(data, 0, 2), (std::vector<double>{0, 0.5, 3, 3.5}));

  // The middle of a mean image of 4 x 4: rows and columns 1 and 2.
  proto::Blob mean{.shape = {1, 3, 4, 4}, .values = std::vector<float>(48, 0)};
  auto& values = std::get<std::vector<float>>(mean.values);
  for (std::size_t i = 0; i < 48; ++i) values[i] = static_cast<float>(i);
  ASSERT_TRUE(proto::write_blob(folder_ / "mean", mean).ok());
  Made with_file = make_layer(
      text(1, base::concat("crop_size: 2 mean_file: '", (folder_ / "mean").string(), "'"), "fg_fraction: 0"), {});
  // Channel 1 of the mean begins at 16: 21, 22, 25, 26.
  EXPECT_EQ(channel(pass(*with_file.layer, 0, 1)[0], 0, 1), (std::vector<double>{4 - 21, 5 - 22, 10 - 25, 11 - 26}));
}

// The window from 4 0 to 5 1 is 2 x 2, and with side 4 and 1 pixel around the scale is 2: half of it is 1 around (5,
// 1), so from 3 to 7 and from -1 to 3, 5 x 5 pixels. Beyond the image, which ends at column 5 and begins at row 0, are
// 2 columns and 1 row. By 4 / 5 those are 1.6 and 0.8: 2 and 1 pixels; what is left, 3 x 4, becomes 2.4 by 3.2, so 2
// x 3.
TEST_F(WindowData, LeavesZeroBeyondTheImageWhateverTheMean) {
  Made made = make_layer(text(1, "crop_size: 4 mean_value: 50", "fg_fraction: 0 context_pad: 1"), {});
  const std::vector<double> pixels = channel(pass(*made.layer, 0, 1)[0], 0);
  for (std::size_t y = 0; y < 4; ++y) {
    for (std::size_t x = 0; x < 4; ++x) {
      if (y == 0 || x >= 2) {
        EXPECT_EQ(pixels[4 * y + x], 0) << x << " " << y;
      } else {
        EXPECT_LT(pixels[4 * y + x], -25) << "pixels of the image are at most 23";
      }
    }
  }
}

TEST_F(WindowData, MirrorsHalfOfTheWindows) {
  Made made = make_layer(text(40, "crop_size: 2 mirror: true", "fg_fraction: 0"), {});
  const at::Tensor data = pass(*made.layer, 0, 40)[0];
  int mirrored = 0;
  for (std::int64_t i = 0; i < 40; ++i) {
    const std::vector<double> pixels = channel(data, i);
    const bool is = pixels == std::vector<double>{5, 4, 11, 10};
    EXPECT_TRUE(is || pixels == (std::vector<double>{4, 5, 10, 11}));
    mirrored += is ? 1 : 0;
  }
  EXPECT_NEAR(mirrored, 20, 16);
}

TEST_F(WindowData, DrawsOnManyWorkersWhatOneWorkerDraws) {
  const std::string_view transform = "crop_size: 3 mirror: true";
  for (const char* const more : {"fg_fraction: 0.5", "fg_fraction: 0.5 cache_images: true crop_mode: 'square'"}) {
    Made whole = make_layer(text(4, transform, more), {});
    Made first = make_layer(text(2, transform, more), {});
    Made second = make_layer(text(2, transform, more), {});
    for (std::uint64_t begin = 0; begin < 20; begin += 4) {
      const std::vector<at::Tensor> all = pass(*whole.layer, begin, 4);
      for (std::size_t top = 0; top < 2; ++top) {
        std::vector<double> both = values_of(pass(*first.layer, begin, 4)[top]);
        const std::vector<double> rest = values_of(pass(*second.layer, begin + 2, 4)[top]);
        both.insert(both.end(), rest.begin(), rest.end());
        EXPECT_EQ(values_of(all[top]), both);
      }
    }
  }
}

TEST_F(WindowData, ExplainsWhatIsWrong) {
  const auto error = [&](std::string_view transform, std::string_view more = "") {
    return testing::setup_error(text(4, transform, more), {});
  };
  EXPECT_NE(error("").find("needs crop_size"), std::string::npos);
  EXPECT_NE(error("crop_size: 4 scale: 2").find("has a scale in transform_param"), std::string::npos);
  EXPECT_NE(error("crop_size: 4", "crop_mode: 'x'").find("there are warp and square"), std::string::npos);
  EXPECT_NE(error("crop_size: 4", "context_pad: 2").find("leaves nothing of crop_size 4"), std::string::npos);
  EXPECT_NE(error("crop_size: 4", "fg_fraction: 2").find("it is from 0 to 1"), std::string::npos);
  EXPECT_NE(
      error("crop_size: 4", "crop_size: 4").find("has crop_size in window_data_param, and in transform_param too"),
      std::string::npos);
  EXPECT_NE(error("crop_size: 4", "fg_threshold: 2").find("has no window with an overlap from fg_threshold (2) on"),
            std::string::npos);
  EXPECT_NE(error("crop_size: 4 mean_value: 1 mean_value: 2").find("another number of mean_value"), std::string::npos);
  write_file(folder_ / "windows", "# 0\na.pgm\n3 4 6\n1\n3 0.1 4 0 6 1\n");
  Made made = make_layer(text(1, "crop_size: 2", "fg_fraction: 0"), {});
  const std::string beyond = testing::error_of([&] { pass(*made.layer, 0, 1); });
  EXPECT_NE(beyond.find("windows:5: the window from 4 0 to 6 1 reaches beyond the image, which is 6 wide and 4 high"),
            std::string::npos)
      << beyond;
}

}  // namespace
}  // namespace poseidon::caffe
