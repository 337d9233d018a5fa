// Structs that say their own size, read and written by a library that may be older or newer than the program.
//
// Pure functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "base/text.h"
#include "poseidon/error.h"
#include "poseidon/poseidon.h"

namespace poseidon::capi {

// The size of a struct in the first version of the ABI, below which a program cannot have set it right. One that has grown keeps its
// old size here, as a specialisation.
template <typename Struct>
constexpr std::size_t kLeastSize = sizeof(Struct);
template <>
inline constexpr std::size_t kLeastSize<poseidon_join_options> = offsetof(poseidon_join_options, provisional);
template <>
inline constexpr std::size_t kLeastSize<poseidon_local_options> = offsetof(poseidon_local_options, per_host);

// Reads what the program knows; what it does not know is zero. kInvalid for a null pointer or an impossible size, and where a
// newer program has set something that this library does not know.
template <typename Struct>
Result<Struct> read(const Struct* given, const char* name) {
  if (given == nullptr) return Error{ErrorCode::kInvalid, base::concat("a null pointer to a ", name)};
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < kLeastSize<Struct> || size > std::size_t{1} << 16) {
    return Error{ErrorCode::kInvalid, base::concat("a ", name, " says that its size is ", size, ", it has ", sizeof(Struct),
                                                   ": begin with POSEIDON_INIT(", name, ")")};
  }
  const char* const bytes = reinterpret_cast<const char*>(given);
  const auto is_set = [](char byte) { return byte != 0; };
  if (size > sizeof(Struct) && std::any_of(bytes + sizeof(Struct), bytes + size, is_set)) {
    return Error{ErrorCode::kInvalid,
                 base::concat("a ", name, " of ", size, " bytes asks for what this version of the library does not have")};
  }
  Struct copy{};
  std::memcpy(&copy, given, std::min(size, sizeof(Struct)));
  return copy;
}

// Writes as much as the program has room for, and leaves its size as it was. The struct has been read() before.
template <typename Struct>
void write(const Struct& from, Struct* to) {
  std::size_t size = 0;
  std::memcpy(&size, to, sizeof size);
  std::memcpy(reinterpret_cast<char*>(to) + sizeof size, reinterpret_cast<const char*>(&from) + sizeof size,
              std::min(size, sizeof(Struct)) - sizeof size);
}

// The struct at `place` of an array whose elements are as long as the first one says.
template <typename Struct>
Struct* at(Struct* array, std::size_t place) {
  using Byte = std::conditional_t<std::is_const_v<Struct>, const char, char>;
  std::size_t size = 0;
  std::memcpy(&size, array, sizeof size);
  return reinterpret_cast<Struct*>(reinterpret_cast<Byte*>(array) + place * size);
}

// All structs of an array.
template <typename Struct>
Result<std::vector<Struct>> read_array(const Struct* array, std::size_t count, const char* name) {
  std::vector<Struct> all;
  for (std::size_t i = 0; i < count; ++i) {
    Result<Struct> one = read(array == nullptr ? nullptr : at(array, i), name);
    if (!one) return one.error();
    if (one->size != array->size) {
      return Error{ErrorCode::kInvalid,
                   base::concat("an array of ", name, " with elements of ", array->size, " and of ", one->size, " bytes")};
    }
    all.push_back(*one);
  }
  return all;
}

}  // namespace poseidon::capi
