#include "base/checksum.h"

#include <gtest/gtest.h>

#include <string_view>

namespace poseidon::base {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

TEST(Crc32c, GivesThePublishedValues) {
  EXPECT_EQ(crc32c(bytes("123456789")), 0xE3069283u);  // the check value of CRC-32C
  // RFC 3720, appendix B.4.
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xFF})), 0x62A8AB43u);
}

TEST(Crc32c, OfPartsIsThatOfTheWhole) {
  EXPECT_EQ(crc32c(bytes("56789"), crc32c(bytes("1234"))), 0xE3069283u);
}

TEST(Sha256, GivesThePublishedValue) {
  Sha256 hash;
  hash.update("ab");
  hash.update("c");
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(to_hex(hash.finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(HmacSha256, GivesThePublishedValue) {
  // RFC 4231, test case 2.
  EXPECT_EQ(to_hex(hmac_sha256(bytes("Jefe"), bytes("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(EqualInConstantTime, ComparesLengthAndContents) {
  EXPECT_TRUE(equal_in_constant_time(bytes("same"), bytes("same")));
  EXPECT_FALSE(equal_in_constant_time(bytes("same"), bytes("Same")));
  EXPECT_FALSE(equal_in_constant_time(bytes("same"), bytes("sam")));
}

TEST(RandomBytes, AreNotTheSameTwice) { EXPECT_NE(random_bytes(16), random_bytes(16)); }

}  // namespace
}  // namespace poseidon::base
