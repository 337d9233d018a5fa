#include "wire/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/checksum.h"

namespace poseidon::wire {
namespace {

using ::testing::HasSubstr;

FrameHeader some_header() {
  FrameHeader header;
  header.job = 0x1122334455667788;
  header.epoch = Epoch{3};
  header.sender = Member{0xA1B2C3D4};
  header.credit = 77;
  header.part = {.type = FrameType::kSum,
                 .flags = 0,
                 .tensor = TensorId{9},
                 .iteration = 1000,
                 .offset = 0x0102030405,
                 .bytes = 4096,
                 .contributors = 4,
                 .samples = 256};
  return header;
}

// The table of docs/wire.md, byte for byte.
TEST(FrameHeader, IsLaidOutAsDocumented) {
  const unsigned char expected[60] = {
      0x50, 0x53, 0x44, 0x4E,                          // "PSDN"
      2,                                               // version
      33,                                              // type: sum
      0, 0,                                            // flags
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // job
      3, 0, 0, 0,                                      // epoch
      0xD4, 0xC3, 0xB2, 0xA1,                          // sender
      9, 0, 0, 0,                                      // tensor
      0, 16, 0, 0,                                     // payload bytes
      0xE8, 3, 0, 0, 0, 0, 0, 0,                       // iteration
      5, 4, 3, 2, 1, 0, 0, 0,                          // offset
      4, 0, 0, 0,                                      // contributors
      0, 1, 0, 0,                                      // samples
      77, 0, 0, 0};                                    // credit
  const auto bytes = encode_header(some_header());
  EXPECT_EQ(std::memcmp(bytes.data(), expected, sizeof expected), 0);
  std::uint32_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + 60, 4);
  EXPECT_EQ(checksum, base::crc32c(std::as_bytes(std::span(expected))));
}

TEST(FrameHeader, ComesBackAsItWas) {
  const Result<FrameHeader> decoded = decode_header(encode_header(some_header()));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(*decoded, some_header());
}

TEST(FrameHeader, WithAnyOneBitChangedIsRefused) {
  const auto good = encode_header(some_header());
  for (std::size_t bit = 0; bit < 8 * kHeaderBytes; ++bit) {
    auto bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    const Result<FrameHeader> decoded = decode_header(bad);
    ASSERT_FALSE(decoded.ok()) << "bit " << bit;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorruptFrame);
  }
}

void expect_refused(const FrameHeader& header, const char* reason) {
  const Result<FrameHeader> decoded = decode_header(encode_header(header));
  ASSERT_FALSE(decoded.ok()) << reason;
  EXPECT_THAT(decoded.error().message, HasSubstr(reason));
}

TEST(FrameHeader, WithAWellFormedLieIsRefused) {
  FrameHeader header = some_header();
  header.part.bytes = kPieceBytes + 1;
  expect_refused(header, "at most 65536 are allowed");
  header = some_header();
  header.part.offset = UINT64_MAX;
  expect_refused(header, "past the end of all numbers");
  header = some_header();
  header.part.flags = 0x4000;
  expect_refused(header, "unknown flags");
  header = some_header();
  header.part.flags = kAbsent;
  expect_refused(header, "absent has a payload");
  header = some_header();
  header.part.type = static_cast<FrameType>(99);
  expect_refused(header, "unknown type 99");
  header = some_header();
  header.part.type = FrameType::kHello;
  expect_refused(header, "at most 512");
  header = some_header();
  header.part.type = FrameType::kCredit;
  expect_refused(header, "at most 0");
  header = some_header();
  header.part.type = FrameType::kFused;
  header.part.contributors = kPartsMax + 1;
  expect_refused(header, "257 parts");
  header.part.contributors = 200;
  expect_refused(header, "shorter than its table");
}

std::vector<PartHeader> some_parts() {
  return {{.type = FrameType::kPush, .tensor = TensorId{1}, .iteration = 5, .offset = 64, .bytes = 100, .contributors = 1, .samples = 8},
          {.type = FrameType::kSum, .flags = kAbsent, .tensor = TensorId{2}, .iteration = 6},
          {.type = FrameType::kBlock, .tensor = TensorId{3}, .iteration = 5, .bytes = 28}};
}

FrameHeader fused(const std::vector<PartHeader>& parts) {
  FrameHeader header;
  header.part.type = FrameType::kFused;
  header.part.contributors = static_cast<std::uint32_t>(parts.size());
  header.part.bytes = static_cast<std::uint32_t>(parts.size() * kPartBytes);
  for (const PartHeader& part : parts) header.part.bytes += part.bytes;
  return header;
}

TEST(FusedFrame, PartsComeBackAsTheyWere) {
  const std::vector<PartHeader> parts = some_parts();
  const Result<FrameHeader> header = decode_header(encode_header(fused(parts)));
  ASSERT_TRUE(header.ok()) << header.error().message;
  EXPECT_EQ(table_bytes(*header), 3 * kPartBytes);
  const Result<std::vector<PartHeader>> decoded = decode_parts(*header, encode_parts(parts));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(*decoded, parts);
}

TEST(FusedFrame, WhosePartsDoNotFillItIsRefused) {
  FrameHeader header = fused(some_parts());
  header.part.bytes += 1;
  EXPECT_THAT(decode_parts(header, encode_parts(some_parts())).error().message, HasSubstr("add up to"));
}

TEST(FusedFrame, WithinAFusedFrameIsRefused) {
  for (const FrameType type : {FrameType::kFused, FrameType::kControl, FrameType::kHello, FrameType::kCredit}) {
    std::vector<PartHeader> parts = some_parts();
    parts[1] = {.type = type};
    EXPECT_THAT(decode_parts(fused(parts), encode_parts(parts)).error().message, HasSubstr("holds a part of type"));
  }
}

}  // namespace
}  // namespace poseidon::wire
