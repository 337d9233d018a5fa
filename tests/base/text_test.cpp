#include "base/text.h"

#include <gtest/gtest.h>

#include "base/quantity.h"

namespace poseidon::base {
namespace {

const std::vector<std::string> kLayers = {"Convolution", "Deconvolution", "InnerProduct", "Pooling", "ReLU", "PReLU"};

TEST(NearMatches, FindTypingErrorsBestFirst) {
  EXPECT_EQ(near_matches("Convolutoin", kLayers), std::vector<std::string>{"Convolution"});
  EXPECT_EQ(near_matches("relu", kLayers), (std::vector<std::string>{"ReLU", "PReLU"}));
  EXPECT_EQ(near_matches("Inner", kLayers), std::vector<std::string>{"InnerProduct"}) << "a beginning counts";
  EXPECT_TRUE(near_matches("LSTM", kLayers).empty());
  EXPECT_TRUE(near_matches("", kLayers).empty());
}

TEST(DidYouMean, IsASentenceOrNothing) {
  EXPECT_EQ(did_you_mean("relu", kLayers), "; did you mean ReLU or PReLU?");
  EXPECT_EQ(did_you_mean("zzzz", kLayers), "");
}

TEST(ReadableNumbers, HaveUnits) {
  EXPECT_EQ(readable_bytes(812), "812 B");
  EXPECT_EQ(readable_bytes(1.5 * 1024 * 1024), "1.5 MiB");
  EXPECT_EQ(readable_seconds(41e-6), "41 us");
  EXPECT_EQ(readable_seconds(3.2e-3), "3.2 ms");
  EXPECT_EQ(readable_seconds(12), "12.0 s");
  EXPECT_EQ(readable_shape(std::vector<std::int64_t>{4096, 9216}), "[4096, 9216]");
  EXPECT_EQ(join_words(std::vector<std::string>{"a", "b", "c"}), "a, b and c");
}

TEST(ParseBandwidth, TakesWhatPeopleWrite) {
  EXPECT_DOUBLE_EQ(parse_bandwidth("10Gbit").value(), 1.25e9);
  EXPECT_DOUBLE_EQ(parse_bandwidth("940 Mbit/s").value(), 117.5e6);
  EXPECT_DOUBLE_EQ(parse_bandwidth("1.2GB/s").value(), 1.2e9);
  EXPECT_DOUBLE_EQ(parse_bandwidth("100Mbps").value(), 12.5e6);
  EXPECT_DOUBLE_EQ(parse_bandwidth("64kB").value(), 64e3);
}

TEST(ParseBytes, TakesWhatPeopleWrite) {
  EXPECT_EQ(parse_bytes("1GB").value(), 1'000'000'000u);
  EXPECT_EQ(parse_bytes("512 MiB").value(), 536'870'912u);
  EXPECT_EQ(parse_bytes("1.5kB").value(), 1'500u);
  EXPECT_EQ(parse_bytes("3KiB").value(), 3'072u);
  EXPECT_EQ(parse_bytes("2TiB").value(), 2'199'023'255'552u);
  EXPECT_EQ(parse_bytes("77 bytes").value(), 77u);
  EXPECT_EQ(parse_bytes("0").value(), 0u);
  EXPECT_EQ(parse_bytes("0 GB").value(), 0u);
}

TEST(ParseBytes, RefusesTheRestAndRepeatsIt) {
  for (const char* text : {"", "much", "10", "-1GB", "1Gbit", "1GBit", "1iB", "1G", "nanGB", "1e30GB", "1GB/s"}) {
    const Result<std::size_t> result = parse_bytes(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_NE(result.error().message.find("\"" + std::string(text) + "\""), std::string::npos);
  }
}

TEST(ParseBandwidth, RefusesTheRestAndRepeatsIt) {
  for (const char* text : {"", "fast", "10", "-1Gbit", "0Gbit", "10Gbitt", "10 Pbit", "nanGbit", "1e999Gbit"}) {
    const Result<double> result = parse_bandwidth(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_NE(result.error().message.find("\"" + std::string(text) + "\""), std::string::npos);
  }
}

TEST(ParseDuration, TakesWhatPeopleWrite) {
  EXPECT_DOUBLE_EQ(parse_duration("50us").value(), 50e-6);
  EXPECT_DOUBLE_EQ(parse_duration("0.1 ms").value(), 1e-4);
  EXPECT_DOUBLE_EQ(parse_duration("2s").value(), 2);
  EXPECT_DOUBLE_EQ(parse_duration("800ns").value(), 800e-9);
  EXPECT_DOUBLE_EQ(parse_duration("0us").value(), 0);
}

TEST(ParseDuration, RefusesTheRestAndRepeatsIt) {
  for (const char* text : {"", "soon", "50", "-1us", "50 usec", "1h", "nans", "1e999s"}) {
    const Result<double> result = parse_duration(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_NE(result.error().message.find("\"" + std::string(text) + "\""), std::string::npos);
  }
}

}  // namespace
}  // namespace poseidon::base
