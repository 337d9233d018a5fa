#include "base/quantity.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>

#include "base/text.h"

namespace poseidon::base {

namespace {

struct Quantity {
  double number = 0;  // finite
  std::string unit;   // what follows, without blanks
};

std::optional<Quantity> split(std::string_view text) {
  std::string compact;
  for (const char c : text) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) compact += c;
  }
  double number = 0;
  const auto [end, failure] = std::from_chars(compact.data(), compact.data() + compact.size(), number);
  if (failure != std::errc{} || !std::isfinite(number)) return std::nullopt;
  return Quantity{number, compact.substr(static_cast<std::size_t>(end - compact.data()))};
}

// Takes the decimal prefix off the unit. 1 where there is none.
double take_prefix(std::string& unit) {
  double scale = 1;
  switch (unit.empty() ? '\0' : unit.front()) {
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
    case 'T':
      scale = 1e12;
      break;
    default:
      return 1;
  }
  unit.erase(0, 1);
  return scale;
}

bool is_byte(const std::string& unit) { return unit == "B" || unit == "byte" || unit == "bytes"; }

}  // namespace

Result<double> parse_bandwidth(std::string_view text) {
  const Error error{ErrorCode::kInvalid, concat("\"", text, "\" is not a bandwidth; write for example 10Gbit, 940Mbit/s or 1.2GB/s")};
  std::optional<Quantity> rate = split(text);
  if (!rate || rate->number <= 0) return error;
  for (const std::string_view suffix : {"/s", "ps"}) {
    if (rate->unit.ends_with(suffix)) {
      rate->unit.resize(rate->unit.size() - suffix.size());
      break;
    }
  }
  const double scale = take_prefix(rate->unit);
  if (rate->unit == "bit" || rate->unit == "b") return rate->number * scale / 8;
  if (is_byte(rate->unit)) return rate->number * scale;
  return error;
}

Result<std::size_t> parse_bytes(std::string_view text) {
  const Error error{ErrorCode::kInvalid, concat("\"", text, "\" is no number of bytes; write for example 1GB, 512MiB or 0")};
  std::optional<Quantity> size = split(text);
  if (!size || size->number < 0) return error;
  if (size->number == 0 && size->unit.empty()) return std::size_t{0};
  double scale = take_prefix(size->unit);
  if (scale > 1 && size->unit.starts_with('i')) {
    size->unit.erase(0, 1);
    scale = std::exp2(10 * std::log10(scale) / 3);
  }
  if (!is_byte(size->unit) || size->number * scale > std::exp2(60)) return error;
  return static_cast<std::size_t>(std::round(size->number * scale));
}

Result<double> parse_duration(std::string_view text) {
  const std::optional<Quantity> time = split(text);
  if (time && time->number >= 0) {
    if (time->unit == "ns") return time->number * 1e-9;
    if (time->unit == "us") return time->number * 1e-6;
    if (time->unit == "ms") return time->number * 1e-3;
    if (time->unit == "s") return time->number;
  }
  return Error{ErrorCode::kInvalid, concat("\"", text, "\" is not a time; write for example 50us, 0.1ms or 2s")};
}

}  // namespace poseidon::base
