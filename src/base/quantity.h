// Quantities as users write them: "10Gbit", "940 Mbit/s", "1.5GB/s"; "512 MiB"; "50us".
#pragma once

#include <cstddef>
#include <string_view>

#include "poseidon/error.h"

namespace poseidon::base {

// Bytes per second. Decimal prefixes (k, M, G, T); "bit" or "b" is a bit, "B" or "byte" a byte; "/s" and "ps" may follow, blanks
// are ignored. The error repeats the text and gives an example.
Result<double> parse_bandwidth(std::string_view text);

// Bytes, at most 2^60. Decimal prefixes (k, M, G, T) or binary ones (Ki, Mi, Gi, Ti) before "B" or "byte"; only 0 needs no unit;
// blanks are ignored. The error repeats the text and gives an example.
Result<std::size_t> parse_bytes(std::string_view text);

// Seconds, 0 or more: "50us", "0.1 ms", "2s", "800ns". The unit must be there, blanks are ignored. The error repeats the text and
// gives an example.
Result<double> parse_duration(std::string_view text);

}  // namespace poseidon::base
