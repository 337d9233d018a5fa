#include "engines/caffe/data/jpeg.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engines/caffe/data/image_file.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/transform.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

// What the two call the same.
struct Way {
  JpegPixels pixels;
  int opencv;
};
constexpr std::array kWays = {Way{JpegPixels::kGray, cv::IMREAD_GRAYSCALE}, Way{JpegPixels::kBlueFirst, cv::IMREAD_COLOR}};

std::string jpeg_of(int rows, int columns, int type, const std::vector<int>& settings, unsigned seed) {
  cv::Mat noise(rows, columns, type);
  cv::RNG random(seed);
  random.fill(noise, cv::RNG::UNIFORM, 0, 256);
  cv::Mat image;
  cv::GaussianBlur(noise, image, cv::Size(5, 5), 0);
  std::vector<unsigned char> bytes;
  cv::imencode(".jpg", image, bytes, settings);
  return {bytes.begin(), bytes.end()};
}

// Rows from top to bottom; nothing where the decoder refuses or is not sure.
std::optional<std::string> decoded(const std::string& bytes, JpegPixels pixels) {
  JpegDecoder decoder;
  const std::optional<JpegHeader> header = decoder.open(bytes);
  if (!header || !decoder.start(pixels)) return std::nullopt;
  const std::size_t row_bytes = static_cast<std::size_t>(header->width) * (pixels == JpegPixels::kGray ? 1 : 3);
  std::string image(row_bytes * static_cast<std::size_t>(header->height), 0);
  for (int row = 0; row < header->height; ++row) {
    if (!decoder.read(reinterpret_cast<unsigned char*>(image.data()) + static_cast<std::size_t>(row) * row_bytes)) return std::nullopt;
  }
  if (!decoder.finish()) return std::nullopt;
  return image;
}

std::string by_opencv(const std::string& bytes, int mode) {
  const cv::Mat image = cv::imdecode(std::vector<unsigned char>(bytes.begin(), bytes.end()), mode);
  return {image.data, image.data + image.total() * image.elemSize()};
}

TEST(Jpeg, GivesWhatOpenCvGives) {
  const std::vector<std::vector<int>> settings = {
      {}, {cv::IMWRITE_JPEG_QUALITY, 30}, {cv::IMWRITE_JPEG_PROGRESSIVE, 1}, {cv::IMWRITE_JPEG_RST_INTERVAL, 3}};
  unsigned seed = 0;
  for (const int type : {CV_8UC1, CV_8UC3}) {
    for (const auto& [rows, columns] : {std::pair{1, 1}, {7, 33}, {64, 48}, {255, 256}}) {
      for (const std::vector<int>& setting : settings) {
        const std::string bytes = jpeg_of(rows, columns, type, setting, ++seed);
        for (const Way& way : kWays) EXPECT_EQ(decoded(bytes, way.pixels), by_opencv(bytes, way.opencv)) << rows << " x " << columns;
      }
    }
  }
}

TEST(Jpeg, LeavesTheRestToOpenCv) {
  const std::string bytes = jpeg_of(40, 30, CV_8UC3, {}, 1);
  JpegDecoder decoder;
  EXPECT_FALSE(decoder.open(""));
  EXPECT_FALSE(decoder.open("\x89PNG"));
  EXPECT_FALSE(decoder.open(std::string_view(bytes).substr(0, 100)));
  // Behind the marker that begins the file: APP1 with 12 bytes.
  EXPECT_FALSE(decoder.open(bytes.substr(0, 2) + std::string("\xFF\xE1\x00\x0C" "Exif\0\0MM\0*", 14) + bytes.substr(2)));
  EXPECT_TRUE(decoder.open(bytes));  // what it refused leaves nothing behind
}

TEST(Jpeg, SaysWhereItHadToGuess) {
  const std::string bytes = jpeg_of(40, 30, CV_8UC3, {}, 1);
  EXPECT_TRUE(decoded(bytes, JpegPixels::kBlueFirst));
  EXPECT_FALSE(decoded(bytes.substr(0, bytes.size() / 2), JpegPixels::kBlueFirst));
}

TEST(Jpeg, DamageIsNeverAnotherImage) {
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  const std::string whole = jpeg_of(24, 31, CV_8UC3, {}, 2);
  std::mt19937 random(3);
  int sure = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = whole;
    for (unsigned change = 0; change <= random() % 4; ++change) bytes[random() % bytes.size()] = static_cast<char>(random());
    for (const Way& way : kWays) {
      const std::optional<std::string> image = decoded(bytes, way.pixels);
      if (!image) continue;
      ++sure;
      EXPECT_EQ(*image, by_opencv(bytes, way.opencv)) << "round " << round;
    }
  }
  EXPECT_GT(sure, 100);  // a change of colours is no damage
}

class JpegRecords : public testing::Test {
 protected:
  static proto::Datum record_of(std::string image) {
    proto::Datum datum;
    datum.encoded = true;
    datum.bytes = std::move(image);
    return datum;
  }
  static Transform transform(const std::string& settings) {
    const proto::Message net = proto::parse_text("layer { transform_param { " + settings + " } }", "NetParameter", "net.prototxt");
    return Transform(net.messages("layer")[0].message("transform_param"), {.training = true, .seed = 5, .layer = "data"});
  }
};

// What the trainer makes of a JPEG is what it makes of the pixels that OpenCV finds in it.
TEST_F(JpegRecords, AreTransformedAsTheirPixelsAre) {
  for (const std::string& settings :
       {std::string("mirror: true"), std::string("crop_size: 17 mirror: true mean_value: 100 scale: 0.017"),
        std::string("force_gray: true crop_size: 9"), std::string("force_color: true mean_value: 1 mean_value: 2 mean_value: 3")}) {
    const Transform how = transform(settings);
    for (const int type : {CV_8UC1, CV_8UC3}) {
      const std::string image = jpeg_of(31, 37, type, {}, 9);
      const proto::Datum plain = decode_image(image, how.color(), "x");
      const proto::Datum encoded = record_of(image);
      const std::vector<std::int64_t> shape = how.shape_for(plain, "x");
      ASSERT_EQ(how.shape_for(encoded, "x"), shape);
      const auto size = static_cast<std::size_t>(shape[0] * shape[1] * shape[2]);
      for (std::uint64_t record = 0; record < 8; ++record) {
        std::vector<float> expected(size, -1), found(size, -2);
        how.apply(plain, 0, record, std::span<float>(expected));
        how.apply(encoded, 0, record, std::span<float>(found));
        EXPECT_EQ(found, expected) << settings;
        std::vector<double> expected_wide(size, -1), found_wide(size, -2);
        how.apply(plain, 0, record, std::span<double>(expected_wide));
        how.apply(encoded, 0, record, std::span<double>(found_wide));
        EXPECT_EQ(found_wide, expected_wide) << settings;
      }
    }
  }
}

// The reader leaves JPEGs alone and decodes everything else, in one data base.
TEST_F(JpegRecords, ComeAsTheyAreStored) {
  const testing_data::TemporaryFolder folder;
  const std::string jpeg = jpeg_of(8, 8, CV_8UC3, {}, 4);
  {
    LmdbWriter writer({folder / "db"});
    writer.append("0", proto::datum_bytes(record_of(jpeg)));
    writer.append("1", proto::datum_bytes(record_of("P5\n2 2\n255\n\x01\x02\x03\x04")));
    writer.append("2", proto::datum_bytes(record_of(jpeg)));
    writer.finish();
  }
  RecordReader reader({.source = folder / "db", .takes_jpegs = true, .program = POSEIDON_DATA_PROGRAM_FOR_TESTS});
  for (int i = 0; i < 6; ++i) {
    const proto::Datum datum = proto::parse_datum(reader.next().value, "x");
    EXPECT_EQ(datum.encoded, i % 3 != 1);
    EXPECT_EQ(datum.bytes, i % 3 != 1 ? jpeg : "\x01\x02\x03\x04");
  }
}

TEST_F(JpegRecords, AreRefusedWhereNothingCanBeRead) {
  const Transform how = transform("");
  std::string image = jpeg_of(8, 8, CV_8UC3, {}, 4);
  EXPECT_EQ(testing_data::error_of([&] { static_cast<void>(how.shape_for(record_of("P5"), "db: record 3")); }),
            "db: record 3: is an encoded image that the trainer cannot decode itself");
  // Right behind the header: no Huffman table, no pixel.
  image.resize(image.find("\xFF\xC4"));
  std::vector<float> numbers(8 * 8 * 3);
  EXPECT_THROW(how.apply(record_of(image), 0, 0, std::span<float>(numbers)), ConfigError);
}

}  // namespace
}  // namespace poseidon::caffe
