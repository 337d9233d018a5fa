#include "base/quantity.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <string>

#include "base/text.h"

namespace poseidon::base {

Result<double> parse_bandwidth(std::string_view text) {
  const Error error{ErrorCode::kInvalid, concat("\"", text, "\" is not a bandwidth; write for example 10Gbit, 940Mbit/s or 1.2GB/s")};
  std::string compact;
  for (const char c : text) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) compact += c;
  }
  double number = 0;
  const auto [end, failure] = std::from_chars(compact.data(), compact.data() + compact.size(), number);
  if (failure != std::errc{} || !std::isfinite(number) || number <= 0) return error;
  std::string unit = compact.substr(static_cast<std::size_t>(end - compact.data()));
  for (const std::string_view suffix : {"/s", "ps"}) {
    if (unit.ends_with(suffix)) {
      unit.resize(unit.size() - suffix.size());
      break;
    }
  }
  double scale = 1;
  if (!unit.empty()) {
    switch (unit.front()) {
      case 'k':
      case 'K':
        scale = 1e3;
        break;
      case 'M':
        scale = 1e6;
        break;
      case 'G':
        scale = 1e9;
        break;
      default:
        break;
    }
    if (scale != 1) unit.erase(0, 1);
  }
  if (unit == "bit" || unit == "b") return number * scale / 8;
  if (unit == "B" || unit == "byte" || unit == "bytes") return number * scale;
  return error;
}

}  // namespace poseidon::base
