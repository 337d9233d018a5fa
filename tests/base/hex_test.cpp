#include "base/hex.h"

#include <gtest/gtest.h>

#include <span>

#include "base/checksum.h"

namespace poseidon::base {
namespace {

TEST(Hex, GivesTheBytesBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  const std::string text = to_hex(std::as_bytes(std::span(all.data(), all.size())));
  EXPECT_EQ(text.substr(0, 6), "000102");
  EXPECT_EQ(from_hex(text), all);
  EXPECT_EQ(from_hex(""), "");
}

TEST(Hex, IsRefusedWhereItIsSomethingElse) {
  for (const char* text : {"0", "0g", "A0", "0 ", "\xFF\xFF"}) EXPECT_EQ(from_hex(text), std::nullopt) << text;
}

}  // namespace
}  // namespace poseidon::base
