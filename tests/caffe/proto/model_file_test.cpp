#include "engines/caffe/proto/model_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "engines/caffe/proto/config_error.h"
#include "tests/caffe/proto/bytes.h"

namespace poseidon::caffe::proto {
namespace {

using testing_bytes::bytes_of;
using testing_bytes::error_of;

// NetParameter {1: "n", 100: LayerParameter {1: "a", 2: "b", 7: BlobProto {5: [1.0f], 7: BlobShape {1: [1]}}}}, from
// the rules of protobuf's encoding by hand.
const std::string kOneNumber =
    bytes_of("0A 01 6E  A2 06 13  0A 01 61  12 01 62  3A 0B  2A 04 00 00 80 3F  3A 03 0A 01 01");

TrainedNet parse(std::string_view bytes) {
  return parse_model(bytes, "x.caffemodel");
}

TEST(ModelFile, HasCaffesBytes) {
  TrainedNet net{"n", {{"a", "b", {Blob{{1}, std::vector<float>{1.0F}}}}}};
  EXPECT_EQ(*model_bytes(net), kOneNumber);
  const TrainedNet read = parse(kOneNumber);
  EXPECT_EQ(read.name, "n");
  ASSERT_EQ(read.layers.size(), 1u);
  EXPECT_EQ(read.layers[0].name, "a");
  EXPECT_EQ(read.layers[0].type, "b");
  ASSERT_EQ(read.layers[0].blobs.size(), 1u);
  EXPECT_EQ(read.layers[0].blobs[0].shape, std::vector<std::int64_t>{1});
  EXPECT_EQ(std::get<0>(read.layers[0].blobs[0].values), std::vector<float>{1.0F});
}

TEST(ModelFile, KeepsDoublesAndScalarsAndLayersWithoutArrays) {
  const TrainedNet net{"deep",
                       {{"ip",
                         "InnerProduct",
                         {Blob{{2, 3}, std::vector<double>{1, 2, 3, 4, 5, 1.0 / 3}}, Blob{{}, std::vector<float>{7}}}},
                        {"relu", "ReLU", {}}}};
  const TrainedNet read = parse(*model_bytes(net));
  ASSERT_EQ(read.layers.size(), 2u);
  EXPECT_EQ(read.layers[0].blobs[0].dtype(), DType::kFloat64);
  EXPECT_EQ(read.layers[0].blobs[0].values, net.layers[0].blobs[0].values);
  EXPECT_TRUE(read.layers[0].blobs[1].shape.empty());
  EXPECT_EQ(read.layers[0].blobs[1].count(), 1u);
  EXPECT_TRUE(read.layers[1].blobs.empty());
}

TEST(ModelFile, ReadsTheFourAxesOfOlderModels) {
  // BlobProto {1: 1, 2: 2, 3: 1, 4: 1, 5: [1.0f, 2.0f]}
  const TrainedNet read =
      parse(bytes_of("A2 06 17  0A 01 61  3A 12  08 01 10 02 18 01 20 01  2A 08 00 00 80 3F 00 00 00 40"));
  EXPECT_EQ(read.layers[0].blobs[0].shape, (std::vector<std::int64_t>{1, 2, 1, 1}));
  EXPECT_EQ(std::get<0>(read.layers[0].blobs[0].values), (std::vector<float>{1.0F, 2.0F}));
}

TEST(ModelFile, ReadsNumbersThatAreNotPacked) {
  // Field 5 as two separate numbers, as protobuf must accept them.
  const TrainedNet read = parse(bytes_of("A2 06 14  0A 01 61  3A 0F  2D 00 00 80 3F 2D 00 00 00 40  3A 03 0A 01 02"));
  EXPECT_EQ(std::get<0>(read.layers[0].blobs[0].values), (std::vector<float>{1.0F, 2.0F}));
}

// As kOneNumber, with 6: [2.0f] in the BlobProto; not read back.
TEST(ModelFile, WritesDiffsBesideTheArrays) {
  const Blob one{{1}, std::vector<float>{1.0F}};
  const TrainedNet net{"n", {{"a", "b", {one}, {Blob{{1}, std::vector<float>{2.0F}}}}}};
  const std::string bytes =
      bytes_of("0A 01 6E  A2 06 19  0A 01 61  12 01 62  3A 11  2A 04 00 00 80 3F  32 04 00 00 00 40  3A 03 0A 01 01");
  EXPECT_EQ(*model_bytes(net), bytes);
  EXPECT_EQ(parse(bytes).layers[0].blobs[0].values, one.values);
}

TEST(ModelFile, ReadsLayersOfTheOlderForms) {
  // NetParameter {1: "n", 2: V1LayerParameter {4: "a", 5: 14 (INNER_PRODUCT), 6: BlobProto {1: 1, 2: 1, 3: 1, 4: 2, 5:
  // [1.0f, 2.0f]}}}
  const TrainedNet v1 = parse(
      bytes_of("0A 01 6E  12 19  22 01 61  28 0E  32 12  08 01 10 01 18 01 20 02  2A 08 00 00 80 3F 00 00 00 40"));
  ASSERT_EQ(v1.layers.size(), 1u);
  EXPECT_EQ(v1.layers[0].name, "a");
  EXPECT_EQ(v1.layers[0].type, "InnerProduct");
  ASSERT_EQ(v1.layers[0].blobs.size(), 1u);
  EXPECT_EQ(v1.layers[0].blobs[0].shape, (std::vector<std::int64_t>{1, 1, 1, 2}));
  EXPECT_EQ(std::get<0>(v1.layers[0].blobs[0].values), (std::vector<float>{1.0F, 2.0F}));
  // NetParameter {2: V1LayerParameter {1: V0LayerParameter {1: "a", 2: "conv", 50: BlobProto {5: [1.0f], 7: {1:
  // [1]}}}}}
  const TrainedNet v0 =
      parse(bytes_of("12 19  0A 17  0A 01 61  12 04 63 6F 6E 76  92 03 0B  2A 04 00 00 80 3F  3A 03 0A 01 01"));
  ASSERT_EQ(v0.layers.size(), 1u);
  EXPECT_EQ(v0.layers[0].name, "a");
  EXPECT_EQ(v0.layers[0].type, "Convolution");
  ASSERT_EQ(v0.layers[0].blobs.size(), 1u);
  EXPECT_EQ(v0.layers[0].blobs[0].shape, std::vector<std::int64_t>{1});
}

TEST(ModelFile, RefusesEveryTruncation) {
  for (std::size_t length = 0; length < kOneNumber.size(); ++length) {
    EXPECT_THROW(static_cast<void>(parse(std::string_view(kOneNumber).substr(0, length))), ConfigError) << length;
  }
}

TEST(ModelFile, SaysWhichArrayDoesNotFitItsShape) {
  // Shape [2], one number.
  const std::string two = bytes_of("A2 06 10  0A 01 61  3A 0B  2A 04 00 00 80 3F  3A 03 0A 01 02");
  EXPECT_EQ(error_of([&] { static_cast<void>(parse(two)); }),
            "x.caffemodel: array 0 of layer \"a\": has 1 numbers for the shape [2]; it is damaged, or was written by "
            "something else");
  // Shape [2^62, 4]: the product is 2^64, which is 0 in 64 bits; and no number. Nothing may be allocated by the shape.
  const std::string huge = bytes_of("A2 06 14  0A 01 61  3A 0F  3A 0D  0A 0B  80 80 80 80 80 80 80 80 40  04  01");
  EXPECT_NE(
      error_of([&] { static_cast<void>(parse(huge)); }).find("has 0 numbers for the shape [4611686018427387904, 4, 1]"),
      std::string::npos);
  // Shape [-1].
  const std::string negative = bytes_of("A2 06 13  0A 01 61  3A 0E  3A 0C  0A 0A  FF FF FF FF FF FF FF FF FF 01");
  EXPECT_NE(error_of([&] { static_cast<void>(parse(negative)); }).find("shape [-1]"), std::string::npos);
}

TEST(ModelFile, RecognisesOtherFiles) {
  EXPECT_EQ(error_of([] { static_cast<void>(parse("")); }),
            "x.caffemodel: is empty; a trained model (.caffemodel) was expected");
  EXPECT_NE(error_of([] {
              static_cast<void>(parse("name: \"LeNet\"\nlayer { name: \"conv1\" }\n"));
            }).find("is not a trained model"),
            std::string::npos);
  // A solver's state: 1 is a number there, and 2, a file's name, is no layer.
  EXPECT_NE(error_of([] { static_cast<void>(parse(bytes_of("08 64"))); }).find("something else"), std::string::npos);
  EXPECT_NE(
      error_of([] { static_cast<void>(parse(bytes_of("08 64  12 03 61 62 63"))); }).find("is not a trained model"),
      std::string::npos);
}

TEST(ModelFile, SurvivesRandomDamage) {
  TrainedNet net{"lenet", {}};
  for (int layer = 0; layer < 4; ++layer) {
    net.layers.push_back({"layer" + std::to_string(layer),
                          "InnerProduct",
                          {Blob{{4, 5}, std::vector<float>(20, 0.5F)}, Blob{{4}, std::vector<float>(4)}}});
  }
  const std::string good = *model_bytes(net);
  std::mt19937 dice(7);
  int refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string bad = good;
    for (int flips = 1 + static_cast<int>(dice() % 4); flips > 0; --flips)
      bad[dice() % bad.size()] = static_cast<char>(dice());
    try {
      static_cast<void>(parse(bad));
    } catch (const ConfigError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);   // damage to the structure is noticed
  EXPECT_LT(refused, 5000);  // damage to a number cannot be: the solver state has the checksum
}

TEST(ModelFile, IsWrittenAndReadAsAFile) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "model_file_test";
  std::filesystem::create_directories(folder);
  const TrainedNet net{"n", {{"a", "b", {Blob{{1}, std::vector<float>{1.0F}}}}}};
  ASSERT_TRUE(write_model(folder / "n.caffemodel", net).ok());
  EXPECT_EQ(*model_bytes(read_model(folder / "n.caffemodel")), kOneNumber);
  EXPECT_FALSE(write_model(folder / "no" / "such" / "n.caffemodel", net).ok());
  EXPECT_EQ(error_of([&] { static_cast<void>(read_model(folder / "none.caffemodel")); }),
            "cannot read " + (folder / "none.caffemodel").string() + ": No such file or directory");
  EXPECT_EQ(error_of([&] { static_cast<void>(read_model(folder)); }),
            "cannot read " + folder.string() + ": it is not a file");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace poseidon::caffe::proto
