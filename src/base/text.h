// Small helpers for the sentences that people read: concatenation, sizes, near matches.
#pragma once

#include <cstdint>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::base {

// concat("rank ", 3, " sent ", bytes): everything that an ostream can print, in one string.
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

// "1.5 MiB", "812 B".
std::string readable_bytes(double bytes);
// "3.2 ms", "41 us", "12.0 s".
std::string readable_seconds(double seconds);
// [4096, 9216] as text.
std::string readable_shape(std::span<const std::int64_t> shape);
// "a, b and c".
std::string join_words(std::span<const std::string> words);

// The candidates that somebody who typed `word` may have meant, best first, at most `count`: those within a third of the
// word's length in edits (Levenshtein), or that start with it, regardless of case.
std::vector<std::string> near_matches(std::string_view word, std::span<const std::string> candidates, std::size_t count = 3);
// "; did you mean A or B?", or nothing where no candidate is near.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace poseidon::base
