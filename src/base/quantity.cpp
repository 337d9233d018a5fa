#include "base/quantity.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>

#include "base/text.h"

namespace poseidon::base {
namespace {

// "1.5 GB" is 1.5 and "GB".
struct Quantity {
  double number = 0;
  std::string unit;
};

std::optional<Quantity> split(std::string_view text) {
  std::string compact;
  for (const char c : text) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) compact += c;
  }
  Quantity quantity;
  const auto [end, failure] = std::from_chars(compact.data(), compact.data() + compact.size(), quantity.number);
  if (failure != std::errc{} || !std::isfinite(quantity.number)) return std::nullopt;
  quantity.unit = compact.substr(static_cast<std::size_t>(end - compact.data()));
  return quantity;
}

}  // namespace

Result<double> parse_bandwidth(std::string_view text) {
  const Error error{ErrorCode::kInvalid, concat("\"", text, "\" is not a bandwidth; write for example 10Gbit, 940Mbit/s or 1.2GB/s")};
  const std::optional<Quantity> quantity = split(text);
  if (!quantity || quantity->number <= 0) return error;
  const double number = quantity->number;
  std::string unit = quantity->unit;
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

Result<double> parse_duration(std::string_view text) {
  const std::optional<Quantity> quantity = split(text);
  if (quantity && quantity->number >= 0) {
    if (quantity->unit == "ns") return quantity->number * 1e-9;
    if (quantity->unit == "us") return quantity->number * 1e-6;
    if (quantity->unit == "ms") return quantity->number * 1e-3;
    if (quantity->unit == "s") return quantity->number;
  }
  return Error{ErrorCode::kInvalid, concat("\"", text, "\" is not a time; write for example 50us, 0.1ms or 2s")};
}

}  // namespace poseidon::base
