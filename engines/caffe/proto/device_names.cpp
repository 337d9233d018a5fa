#include "engines/caffe/proto/device_names.h"

#include <algorithm>
#include <cctype>
#include <cstddef>

namespace poseidon::caffe::proto {
namespace {

constexpr std::string_view kNumber = "device_id";
constexpr std::string_view kText = "gpu_names";
static_assert(kNumber.size() == kText.size());

bool is_quote(char c) {
  return c == '"' || c == '\'';
}
bool is_of_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// Behind what begins at `at`: a comment, a quoted text, a name or number, or one other character.
std::size_t end_of_token(std::string_view text, std::size_t at) {
  if (text[at] == '#') return std::min(text.find('\n', at), text.size());
  if (is_quote(text[at])) {
    std::size_t end = at + 1;
    // Without its closing quote a text ends with the line; the parser says so.
    while (end < text.size() && text[end] != text[at] && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
    return std::min(end + 1, text.size());
  }
  std::size_t end = at + 1;
  while (is_of_name(text[at]) && end < text.size() && is_of_name(text[end])) ++end;
  return end;
}

// The next token that is neither space nor comment, or text.size().
std::size_t next_token(std::string_view text, std::size_t at) {
  while (at < text.size() && (std::isspace(static_cast<unsigned char>(text[at])) != 0 || text[at] == '#')) {
    at = end_of_token(text, at);
  }
  return at;
}

}  // namespace

std::string with_gpu_names(std::string_view solver) {
  std::string text(solver);
  for (std::size_t at = next_token(solver, 0); at < solver.size();) {
    const std::size_t end = end_of_token(solver, at);
    const std::size_t colon = next_token(solver, end);
    if (solver.substr(at, end - at) == kNumber && colon < solver.size() && solver[colon] == ':') {
      const std::size_t value = next_token(solver, colon + 1);
      if (value < solver.size() && is_quote(solver[value])) text.replace(at, kText.size(), kText);
    }
    at = colon;
  }
  return text;
}

}  // namespace poseidon::caffe::proto
