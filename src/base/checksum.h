// Checksums: CRC-32C against accidents (headers), SHA-256 for identity (digests of parameters, snapshots), HMAC-SHA-256 for
// proof of a shared secret, and the random bytes that such proofs need.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace poseidon::base {

// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) as in RFC 3720, appendix B.4.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0);

using Digest = std::array<std::byte, 32>;

// SHA-256 of bytes that come in parts.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  // Ends the computation; the object is used up.
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> message);
// Compares in a time that does not depend on where the two differ.
bool equal_in_constant_time(std::span<const std::byte> a, std::span<const std::byte> b);
// From the operating system's generator, fit for secrets and nonces.
std::vector<std::byte> random_bytes(std::size_t count);

std::string to_hex(std::span<const std::byte> bytes);

}  // namespace poseidon::base
