// Integers as they travel: little-endian, whatever the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace poseidon::wire {

// Writes integers one after the other.
class Writer {
 public:
  explicit Writer(std::byte* at) : at_(at) {}
  template <typename T>
  Writer& put(T value) {
    static_assert(std::is_unsigned_v<T>);
    for (std::size_t i = 0; i < sizeof(T); ++i) *at_++ = static_cast<std::byte>(value >> (8 * i));
    return *this;
  }

 private:
  std::byte* at_;
};

// Reads them; the caller has seen to it that they are there.
class Reader {
 public:
  explicit Reader(const std::byte* at) : at_(at) {}
  template <typename T>
  T take() {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) value |= std::uint64_t{static_cast<std::uint8_t>(*at_++)} << (8 * i);
    return static_cast<T>(value);
  }

 private:
  const std::byte* at_;
};

}  // namespace poseidon::wire
