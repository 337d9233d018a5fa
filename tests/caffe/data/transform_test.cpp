#include "engines/caffe/data/transform.h"

#include <map>
#include <set>

#include "engines/caffe/proto/blob_file.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::error_of;
using testing_data::TemporaryFolder;

Transform transform(const std::string& settings, bool training = true, std::uint64_t seed = 1,
                    const std::string& layer = "data") {
  const proto::Message net =
      proto::parse_text("layer { transform_param { " + settings + " } }", "NetParameter", "net.prototxt");
  return Transform(net.messages("layer")[0].message("transform_param"), {training, seed, layer});
}

// Pixels 0, 1, 2, ... in [channels, height, width].
proto::Datum counting(int channels, int height, int width) {
  proto::Datum datum;
  datum.channels = channels;
  datum.height = height;
  datum.width = width;
  for (std::size_t i = 0; i < datum.count(); ++i) datum.bytes += static_cast<char>(i);
  return datum;
}

template <typename T = float>
std::vector<T> applied(const Transform& how, const proto::Datum& datum, std::uint64_t iteration = 0,
                       std::uint64_t record = 0) {
  std::size_t count = 1;
  for (const std::int64_t extent : how.shape_for(datum, "x")) count *= static_cast<std::size_t>(extent);
  std::vector<T> out(count, T{-99});
  how.apply(datum, iteration, record, std::span<T>(out));
  return out;
}

TEST(Transform, WithoutSettingsYieldsThePixels) {
  proto::Datum datum = counting(1, 1, 3);
  datum.bytes = std::string("\x00\x80\xFF", 3);
  EXPECT_EQ(applied(transform(""), datum), (std::vector<float>{0, 128, 255}));
}

TEST(Transform, SubtractsTheMeanBeforeItScales) {
  const proto::Datum datum = counting(2, 1, 2);  // 0 1 | 2 3
  EXPECT_EQ(applied(transform("scale: 0.5 mean_value: 1"), datum), (std::vector<float>{-0.5F, 0, 0.5F, 1}));
  EXPECT_EQ(applied(transform("scale: 2 mean_value: 1 mean_value: 10"), datum), (std::vector<float>{-2, 0, -16, -14}));
}

TEST(Transform, CalculatesInTheTypeOfItsOutput) {
  const proto::Datum datum = counting(1, 1, 4);
  const std::string settings = "scale: 0.00390625 mean_value: 0.1";
  EXPECT_EQ(applied<float>(transform(settings), datum)[3], (3.0F - 0.1F) * 0.00390625F);
  EXPECT_EQ(applied<double>(transform(settings), datum)[3], (3.0 - 0.1) * 0.00390625);
}

TEST(Transform, CutsOutTheMiddleInTesting) {
  // Rows 0 to 3 of 5 columns; a square of 2 begins at ((4-2)/2, (5-2)/2) = (1, 1): pixels 6 7 / 11 12.
  const Transform how = transform("crop_size: 2", false);
  EXPECT_EQ(how.shape_for(counting(1, 4, 5), "x"), (std::vector<std::int64_t>{1, 2, 2}));
  EXPECT_EQ(applied(how, counting(1, 4, 5)), (std::vector<float>{6, 7, 11, 12}));
  // The second channel begins at 20.
  EXPECT_EQ(applied(how, counting(2, 4, 5)), (std::vector<float>{6, 7, 11, 12, 26, 27, 31, 32}));
}

TEST(Transform, CutsEverywhereInTraining) {
  const Transform how = transform("crop_size: 2");
  const proto::Datum datum = counting(1, 4, 5);
  std::map<std::pair<int, int>, int> places;
  for (std::uint64_t record = 0; record < 1200; ++record) {
    const std::vector<float> out = applied(how, datum, 3, record);
    const int first = static_cast<int>(out[0]);
    EXPECT_EQ(out, (std::vector<float>{out[0], out[0] + 1, out[0] + 5, out[0] + 6}));
    ++places[{first / 5, first % 5}];
  }
  ASSERT_EQ(places.size(), 12u);  // 3 rows by 4 columns
  for (const auto& [place, count] : places)
    EXPECT_NEAR(count, 100, 45) << place.first << ", " << place.second;  // 4.7 standard deviations
}

TEST(Transform, MirrorsAboutHalfOfTheRecordsInBothPhases) {
  const proto::Datum datum = counting(1, 2, 3);
  for (const bool training : {true, false}) {
    const Transform how = transform("mirror: true", training);
    int mirrored = 0;
    for (std::uint64_t record = 0; record < 1000; ++record) {
      const std::vector<float> out = applied(how, datum, 0, record);
      if (out == std::vector<float>{2, 1, 0, 5, 4, 3}) {
        ++mirrored;
      } else {
        EXPECT_EQ(out, (std::vector<float>{0, 1, 2, 3, 4, 5}));
      }
    }
    EXPECT_NEAR(mirrored, 500, 75);  // 4.7 standard deviations
  }
}

TEST(Transform, MirrorsWhatItCutOut) {
  const Transform how = transform("crop_size: 2 mirror: true", false);
  std::set<std::vector<float>> seen;
  for (std::uint64_t record = 0; record < 50; ++record) seen.insert(applied(how, counting(1, 4, 5), 0, record));
  EXPECT_EQ(seen, (std::set<std::vector<float>>{{6, 7, 11, 12}, {7, 6, 12, 11}}));
}

TEST(Transform, DrawsByWhatIsDrawnForAndNothingElse) {
  const proto::Datum datum = counting(1, 9, 9);
  const auto series = [&](const Transform& how, std::uint64_t iteration) {
    std::vector<std::vector<float>> all;
    for (std::uint64_t record = 0; record < 20; ++record) all.push_back(applied(how, datum, iteration, record));
    return all;
  };
  const std::string settings = "crop_size: 4 mirror: true";
  const auto reference = series(transform(settings), 5);
  EXPECT_EQ(series(transform(settings), 5), reference);                   // another worker's object
  EXPECT_NE(series(transform(settings), 6), reference);                   // the next iteration
  EXPECT_NE(series(transform(settings, true, 2), 5), reference);          // another seed
  EXPECT_NE(series(transform(settings, true, 1, "more"), 5), reference);  // another layer
  // One record by itself, after others or before them.
  EXPECT_EQ(applied(transform(settings), datum, 5, 13), reference[13]);
}

TEST(Transform, SubtractsAMeanImageAtThePlaceOfThePixel) {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "mean.binaryproto";
  // [1, 1, 3, 3] with the mean 0, 10, 20, ...; the middle square of 1 is pixel 4 of value 4, mean 40.
  std::vector<float> mean;
  for (int i = 0; i < 9; ++i) mean.push_back(static_cast<float>(10 * i));
  ASSERT_TRUE(proto::write_blob(file, {{1, 1, 3, 3}, mean}).ok());
  EXPECT_EQ(applied(transform("crop_size: 1 scale: 0.5 mean_file: '" + file.string() + "'", false), counting(1, 3, 3)),
            (std::vector<float>{-18}));
  EXPECT_EQ(applied(transform("mean_file: '" + file.string() + "'"), counting(1, 3, 3))[8], 8.0F - 80.0F);

  EXPECT_NE(
      error_of([&] {
        static_cast<void>(transform("mean_file: '" + file.string() + "'").shape_for(counting(1, 4, 3), "db: record 7"));
      }).find("db: record 7: the image [1, 4, 3] has another shape than "),
      std::string::npos);
}

TEST(Transform, TakesFloatRecords) {
  proto::Datum datum = counting(1, 1, 2);
  datum.bytes.clear();
  datum.floats = {0.25F, -3};
  EXPECT_EQ(applied(transform("scale: 2"), datum), (std::vector<float>{0.5F, -6}));
}

TEST(Transform, SaysWhatContradicts) {
  EXPECT_EQ(error_of([] { static_cast<void>(transform("force_color: true force_gray: true")); }),
            "net.prototxt:1:45: force_color and force_gray exclude each other");
  EXPECT_EQ(error_of([] { static_cast<void>(transform("mean_file: 'x' mean_value: 3")); }),
            "net.prototxt:1:27: mean_file and mean_value exclude each other");
  EXPECT_EQ(error_of([] { static_cast<void>(transform("mean_file: '/none'")); }),
            "net.prototxt:1:27: mean_file: cannot read /none: No such file or directory");
  EXPECT_EQ(error_of([] { static_cast<void>(transform("crop_size: 3").shape_for(counting(1, 4, 2), "db: record 7")); }),
            "db: record 7: the image [1, 4, 2] is smaller than crop_size 3 of layer \"data\"");
  EXPECT_EQ(
      error_of([] {
        static_cast<void>(transform("mean_value: 1 mean_value: 2").shape_for(counting(3, 1, 1), "db: record 7"));
      }),
      "db: record 7: layer \"data\" has 2 times mean_value for an image of 3 channels; give one, or one per channel");
}

TEST(Transform, SaysWhatImagesAreDecodedTo) {
  EXPECT_EQ(transform("").color(), ImageColor::kAsStored);
  EXPECT_EQ(transform("force_color: true").color(), ImageColor::kColor);
  EXPECT_EQ(transform("force_gray: true").color(), ImageColor::kGray);
}

}  // namespace
}  // namespace poseidon::caffe
