// Bytes from hexadecimal digits, in which they travel through text (base/checksum.h has the other direction).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace poseidon::base {

// Nothing where the text is no even number of digits 0-9 and a-f.
std::optional<std::string> from_hex(std::string_view text);

}  // namespace poseidon::base
