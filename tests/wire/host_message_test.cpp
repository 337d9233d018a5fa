#include "wire/host_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace poseidon::wire {
namespace {

using ::testing::HasSubstr;

HostMessage some_message() {
  return {.kind = HostMessageKind::kReady,
          .absent = true,
          .tensor = TensorId{9},
          .iteration = 1000,
          .contributors = 4,
          .samples = 256,
          .places = {{{0x1000, 0x0102030405}, {0x2000, 7}, {0, 0}}}};
}

// The table of docs/wire.md, byte for byte.
TEST(HostMessage, IsLaidOutAsDocumented) {
  const unsigned char expected[kHostMessageBytes] = {
      1, 1, 0, 0,                 // kind: ready; absent
      9, 0, 0, 0,                 // tensor
      0xE8, 3, 0, 0, 0, 0, 0, 0,  // iteration
      4, 0, 0, 0,                 // contributors
      0, 1, 0, 0,                 // samples
      0, 0x10, 0, 0, 0, 0, 0, 0, 5, 4, 3, 2, 1, 0, 0, 0,
      0, 0x20, 0, 0, 0, 0, 0, 0, 7};
  const auto bytes = encode_host_message(some_message());
  EXPECT_EQ(std::memcmp(bytes.data(), expected, sizeof expected), 0);
}

TEST(HostMessage, ComesBackAsItWas) {
  const Result<HostMessage> decoded = decode_host_message(encode_host_message(some_message()));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(*decoded, some_message());
}

TEST(HostMessage, WhatHasNoMeaningIsRefused) {
  const auto refused = [](std::size_t at, unsigned char value) {
    auto bytes = encode_host_message(some_message());
    bytes[at] = std::byte{value};
    const Result<HostMessage> decoded = decode_host_message(bytes);
    return decoded.ok() ? std::string("accepted") : decoded.error().message;
  };
  EXPECT_THAT(refused(0, 0), HasSubstr("unknown kind 0"));
  EXPECT_THAT(refused(0, 7), HasSubstr("unknown kind 7"));
  EXPECT_THAT(refused(1, 2), HasSubstr("unknown flags"));
  EXPECT_THAT(refused(2, 1), HasSubstr("unknown flags"));
  auto bytes = encode_host_message({.places = {{{UINT64_MAX, 2}, {}, {}}}});
  EXPECT_THAT(decode_host_message(bytes).error().message, HasSubstr("past the end"));
  EXPECT_THAT(decode_host_message(std::span(bytes).first(71)).error().message, HasSubstr("has 71 bytes"));
}

TEST(HostMessage, AFrameOfAnotherLengthIsRefused) {
  FrameHeader header;
  header.part.type = FrameType::kHost;
  header.part.bytes = kHostMessageBytes;
  EXPECT_TRUE(decode_header(encode_header(header)).ok());
  header.part.bytes = kHostMessageBytes + 1;
  EXPECT_FALSE(decode_header(encode_header(header)).ok());
}

}  // namespace
}  // namespace poseidon::wire
