#include "engines/caffe/proto/datum.h"

#include <gtest/gtest.h>

#include "engines/caffe/proto/blob_file.h"
#include "tests/caffe/proto/bytes.h"

namespace poseidon::caffe::proto {
namespace {

using testing_bytes::bytes_of;
using testing_bytes::error_of;

// Datum {1: 1, 2: 2, 3: 2, 4: 00 7F 80 FF, 5: 9, 7: false}
const std::string kFourPixels = bytes_of("08 01  10 02  18 02  22 04 00 7F 80 FF  28 09  38 00");

TEST(Datum, HasCaffesBytes) {
  Datum datum;
  datum.channels = 1;
  datum.height = 2;
  datum.width = 2;
  datum.label = 9;
  datum.bytes = bytes_of("00 7F 80 FF");
  EXPECT_EQ(datum_bytes(datum), kFourPixels);
  const Datum read = parse_datum(kFourPixels, "db: record 0");
  EXPECT_EQ(read.channels, 1);
  EXPECT_EQ(read.height, 2);
  EXPECT_EQ(read.width, 2);
  EXPECT_EQ(read.label, 9);
  EXPECT_FALSE(read.encoded);
  EXPECT_EQ(read.bytes, datum.bytes);
  EXPECT_TRUE(read.floats.empty());
}

TEST(Datum, HoldsFloatsOrAnEncodedImage) {
  Datum floats;
  floats.channels = floats.height = 1;
  floats.width = 2;
  floats.floats = {0.5F, -1.0F};
  EXPECT_EQ(parse_datum(datum_bytes(floats), "x").floats, floats.floats);

  Datum encoded;
  encoded.encoded = true;
  encoded.bytes = "JPEG";
  encoded.label = -1;
  // {4: "JPEG", 5: -1, 7: true}, without extents: as Caffe writes it.
  EXPECT_EQ(datum_bytes(encoded), bytes_of("22 04 4A 50 45 47  28 FF FF FF FF FF FF FF FF FF 01  38 01"));
  EXPECT_EQ(parse_datum(datum_bytes(encoded), "x").label, -1);
}

TEST(Datum, IsRefusedWhereExtentsAndNumbersDiffer) {
  EXPECT_EQ(
      error_of([] { static_cast<void>(parse_datum(bytes_of("08 01 10 02 18 02 22 03 00 7F 80"), "db: record 5")); }),
      "db: record 5: is not an image record: its extents are [1, 2, 2], and it has 3 bytes and 0 floats");
  // 2^31-1 cubed overflows any integer; nothing may be allocated by it.
  EXPECT_THROW(
      static_cast<void>(parse_datum(bytes_of("08 FF FF FF FF 07 10 FF FF FF FF 07 18 FF FF FF FF 07 22 01 00"), "x")),
      ConfigError);
  EXPECT_THROW(static_cast<void>(parse_datum(bytes_of("08 00 10 02 18 02 22 00"), "x")), ConfigError);
  EXPECT_THROW(static_cast<void>(parse_datum(bytes_of("38 01"), "x")), ConfigError);
}

TEST(Datum, IsRefusedWhereTheBytesAreSomethingElse) {
  EXPECT_THROW(static_cast<void>(parse_datum("", "x")), ConfigError);
  EXPECT_THROW(static_cast<void>(parse_datum("just some words in a value", "x")), ConfigError);
  for (std::size_t length = 0; length < 12; ++length) {
    EXPECT_THROW(static_cast<void>(parse_datum(std::string_view(kFourPixels).substr(0, length), "x")), ConfigError)
        << length;
  }
}

TEST(BlobFile, HoldsAMeanImage) {
  // BlobProto {1: 1, 2: 1, 3: 1, 4: 2, 5: [1.0f, 2.0f]}: as Caffe's compute_image_mean wrote it.
  const Blob mean = parse_blob(bytes_of("08 01 10 01 18 01 20 02  2A 08 00 00 80 3F 00 00 00 40"), "mean.binaryproto");
  EXPECT_EQ(mean.shape, (std::vector<std::int64_t>{1, 1, 1, 2}));
  EXPECT_EQ(std::get<0>(mean.values), (std::vector<float>{1.0F, 2.0F}));
  EXPECT_EQ(parse_blob(*blob_bytes(mean), "again").values, mean.values);
  EXPECT_EQ(error_of([] { static_cast<void>(parse_blob("", "mean.binaryproto")); }),
            "mean.binaryproto: is empty; an array (.binaryproto) was expected");
  EXPECT_NE(error_of([] { static_cast<void>(read_blob("/none.binaryproto")); }).find("No such file"),
            std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe::proto
