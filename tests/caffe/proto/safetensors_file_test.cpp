#include "engines/caffe/proto/safetensors_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::proto {
namespace {

using ::testing::HasSubstr;

// A file as the format's description has it, made by hand.
std::string file_of(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>((header.size() >> (8 * i)) & 0xFF);
  return bytes + header + data;
}

std::string error_of(const std::string& bytes) {
  try {
    parse_safetensors(bytes, "x.safetensors");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Safetensors, HasTheFormatsBytes) {
  const TrainedNet net{"n", {{"ip", "InnerProduct", {Blob{{1, 2}, std::vector<float>{1, -2}}, Blob{{1}, std::vector<double>{0.5}}}}}};
  const std::string bytes = safetensors_bytes(net);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const std::string header = bytes.substr(8, length);
  EXPECT_THAT(header, HasSubstr(R"("ip.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]})"));
  EXPECT_THAT(header, HasSubstr(R"("ip.bias":{"dtype":"F64","shape":[1],"data_offsets":[8,16]})"));
  EXPECT_EQ(length % 8, 0u);
  const std::string data("\x00\x00\x80\x3F\x00\x00\x00\xC0\x00\x00\x00\x00\x00\x00\xE0\x3F", 16);
  EXPECT_EQ(bytes.substr(8 + length), data);
}

TEST(Safetensors, GivesBackLayersWithTheirTypesAndOrder) {
  const TrainedNet net{"deep",
                       {{"z", "Convolution", {Blob{{2}, std::vector<float>{1, 2}}}},
                        {"relu", "ReLU", {}},
                        {"bn", "BatchNorm", {Blob{{1}, std::vector<float>{1}}, Blob{{1}, std::vector<float>{2}}, Blob{{1}, std::vector<float>{3}}}},
                        {"a", "LSTM", {Blob{{1}, std::vector<float>{4}}, Blob{{1}, std::vector<float>{5}}, Blob{{}, std::vector<float>{6}}}}}};
  const TrainedNet read = parse_safetensors(safetensors_bytes(net), "x");
  EXPECT_EQ(read.name, "deep");
  ASSERT_EQ(read.layers.size(), net.layers.size());
  for (std::size_t i = 0; i < net.layers.size(); ++i) {
    EXPECT_EQ(read.layers[i].name, net.layers[i].name);
    EXPECT_EQ(read.layers[i].type, net.layers[i].type);
    ASSERT_EQ(read.layers[i].blobs.size(), net.layers[i].blobs.size());
    for (std::size_t j = 0; j < net.layers[i].blobs.size(); ++j) {
      EXPECT_EQ(read.layers[i].blobs[j].shape, net.layers[i].blobs[j].shape);
      EXPECT_EQ(read.layers[i].blobs[j].values, net.layers[i].blobs[j].values);
    }
  }
}

TEST(Safetensors, ReadsWhatOtherProgramsWrite) {
  // 1.5, -2, the largest and the smallest half, infinity; and 1.5 as a bfloat16.
  const std::string halves("\x00\x3E\x00\xC0\xFF\x7B\x01\x00\x00\x7C\xC0\x3F", 12);
  const TrainedNet net = parse_safetensors(
      file_of(R"({"fc.bias":{"dtype":"BF16","shape":[1],"data_offsets":[10,12]},"fc.weight":{"dtype":"F16","shape":[5],"data_offsets":[0,10]}})", halves), "x");
  ASSERT_EQ(net.layers.size(), 1u);
  EXPECT_EQ(net.layers[0].name, "fc");
  EXPECT_EQ(std::get<0>(net.layers[0].blobs[0].values), (std::vector<float>{1.5F, -2, 65504, 0x1p-24F, INFINITY})) << "weights come first";
  EXPECT_EQ(std::get<0>(net.layers[0].blobs[1].values), std::vector<float>{1.5F});
}

TEST(Safetensors, RefusesWhatIsWrong) {
  EXPECT_THAT(error_of("abc"), HasSubstr("too short"));
  EXPECT_THAT(error_of(file_of("{}", "")), HasSubstr("holds no array"));
  EXPECT_THAT(error_of(file_of("[1]", "")), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", 8)), HasSubstr("cut off"));
  EXPECT_THAT(error_of(file_of(R"({"a.b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234")), HasSubstr("0 to 8 of 4"));
  EXPECT_THAT(error_of(file_of(R"({"a.b":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "12345678")), HasSubstr("8 bytes for 1 numbers"));
  EXPECT_THAT(error_of(file_of(R"({"a.b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", "12345678")), HasSubstr("of type I64"));
  EXPECT_THAT(error_of(file_of(R"({"a.b":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", "1234")), HasSubstr("more numbers"));
  EXPECT_THAT(error_of(file_of(R"({"a.b":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234")), HasSubstr("impossible shape"));
  EXPECT_THAT(error_of(file_of(R"({"a.b":{"dtype":"F32"}})", "")), HasSubstr("lacks"));
}

// A thousand files with bytes changed, cut or doubled: the contents, or a sentence.
TEST(Safetensors, DamagedFilesAreRefusedOrRead) {
  const std::string whole = safetensors_bytes({"n", {{"ip", "InnerProduct", {Blob{{2, 3}, std::vector<float>(6, 1)}, Blob{{2}, std::vector<float>(2, 0)}}}}});
  std::mt19937 draw(7);
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string bytes = whole;
    for (unsigned changes = 1 + draw() % 4; changes > 0; --changes) {
      const std::size_t at = draw() % bytes.size();
      switch (draw() % 3) {
        case 0: bytes[at] = static_cast<char>(draw()); break;
        case 1: bytes.erase(at, 1 + draw() % 8); break;
        default: bytes.insert(at, bytes.substr(at, 1 + draw() % 8)); break;
      }
      if (bytes.empty()) bytes = "x";
    }
    try {
      parse_safetensors(bytes, "damaged.safetensors");
    } catch (const ConfigError& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr("damaged.safetensors"));
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace poseidon::caffe::proto
