#include "wire/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace poseidon::wire {
namespace {

using ::testing::HasSubstr;

GateNews some_news() {
  return {.closing = 0x0102030405060708, .open = false, .admitted = {{TensorId{9}, 0x10000, 5}, {TensorId{0xA1B2C3D4}, 0, 4}}};
}

// The table of docs/wire.md, byte for byte.
TEST(GateNews, IsLaidOutAsDocumented) {
  const unsigned char expected[] = {
      8,    7,    6,    5,    4, 3, 2, 1,  // closing
      0,    0,    0,    0,                 // closed
      2,    0,    0,    0,                 // chunks
      9,    0,    0,    0,                 // tensor
      0,    0,    1,    0,    0, 0, 0, 0,  // offset
      5,    0,    0,    0,    0, 0, 0, 0,  // iteration
      0xD4, 0xC3, 0xB2, 0xA1,              // the second: tensor
      0,    0,    0,    0,    0, 0, 0, 0,  // offset
      4,    0,    0,    0,    0, 0, 0, 0,  // iteration
  };
  const std::vector<std::byte> bytes = encode_gate(some_news());
  ASSERT_EQ(bytes.size(), sizeof expected);
  EXPECT_EQ(std::memcmp(bytes.data(), expected, sizeof expected), 0);
}

TEST(GateNews, ComesBackAsItWas) {
  GateNews full = some_news();
  full.admitted.resize(kAdmittedMax);
  for (const GateNews& news : {some_news(), full, GateNews{.closing = 3, .open = true, .admitted = {}}, GateNews{}}) {
    const std::vector<std::byte> bytes = encode_gate(news);
    EXPECT_LE(bytes.size(), kGateBytesMax);
    const Result<GateNews> decoded = decode_gate(bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(*decoded, news);
  }
}

void expect_refused(const std::vector<std::byte>& body, const char* reason) {
  const Result<GateNews> decoded = decode_gate(body);
  ASSERT_FALSE(decoded.ok()) << reason;
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorruptFrame);
  EXPECT_THAT(decoded.error().message, HasSubstr(reason));
}

TEST(GateNews, ThatIsNoneIsRefused) {
  const std::vector<std::byte> good = encode_gate(some_news());
  expect_refused({}, "at least 16 bytes");
  expect_refused({good.begin(), good.begin() + 15}, "at least 16 bytes");
  expect_refused({good.begin(), good.end() - 1}, "announces 2 chunks in 55 bytes");
  std::vector<std::byte> bad = good;
  bad.push_back(std::byte{0});
  expect_refused(bad, "announces 2 chunks in 57 bytes");
  bad = good;
  bad[15] = std::byte{0xFF};  // four thousand million chunks
  expect_refused(bad, "announces");
  bad = good;
  bad[8] = std::byte{2};
  expect_refused(bad, "unknown state 2");
  bad[8] = std::byte{1};
  expect_refused(bad, "an open gate names chunks");
  bad = good;
  std::fill_n(bad.begin(), 8, std::byte{0});
  expect_refused(bad, "counted from 1");
}

}  // namespace
}  // namespace poseidon::wire
