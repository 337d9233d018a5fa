// Assertions about our own code, in all builds: the program is wrong, says where and with which values, and ends.
//
//   POSEIDON_CHECK(slot.iteration == iteration, "slot of iteration ", slot.iteration, ", wanted ", iteration);
#pragma once

#include <string>

#include "base/text.h"

namespace poseidon::base {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& values);
}  // namespace poseidon::base

// A macro, because the values must not be formatted when all is well.
#define POSEIDON_CHECK(condition, ...)                                                                          \
  do {                                                                                                          \
    if (!(condition)) ::poseidon::base::check_failed(__FILE__, __LINE__, #condition, ::poseidon::base::concat(__VA_ARGS__)); \
  } while (false)
