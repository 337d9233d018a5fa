// Quantities as users write them: "10Gbit", "940 Mbit/s", "1.5GB/s"; "50us".
#pragma once

#include <string_view>

#include "poseidon/error.h"

namespace poseidon::base {

// Bytes per second. Decimal prefixes (k, M, G); "bit" or "b" is a bit, "B" or "byte" a byte; "/s" and "ps" may follow, blanks
// are ignored. The error repeats the text and gives an example.
Result<double> parse_bandwidth(std::string_view text);

// Seconds, 0 or more: "50us", "0.1 ms", "2s", "800ns". The unit must be there, blanks are ignored. The error repeats the text and
// gives an example.
Result<double> parse_duration(std::string_view text);

}  // namespace poseidon::base
