// What people and disks do to prototxts, for tests of what is said about it.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace poseidon::caffe::testing_data {

inline constexpr std::array<std::string_view, 16> kNumbers = {
    "0", "-1", "1", "2", "7", "1000", "100000", "2147483647", "-2147483648", "4294967296", "9223372036854775807", "1e39", "-0.5", "nan", "inf", "''"};

inline bool is_of_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-';
}

// Beginnings of words, and their lengths.
inline std::vector<std::pair<std::size_t, std::size_t>> words_of(const std::string& text) {
  std::vector<std::pair<std::size_t, std::size_t>> words;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && is_of_word(text[end])) ++end;
    if (end > i) words.emplace_back(i, end - i);
    i = std::max(end, i + 1);
  }
  return words;
}

// One thing in a prototxt goes wrong: a byte, a word, a number, a line.
inline void damage(std::string& text, std::mt19937& random) {
  if (text.empty()) return;
  const auto below = [&](std::size_t count) { return random() % count; };
  const auto words = words_of(text);
  switch (below(7)) {
    case 0:
      text[below(text.size())] = static_cast<char>(random());
      return;
    case 1:
      text.erase(below(text.size()), 1 + below(20));
      return;
    case 2:
      text.resize(below(text.size()));
      return;
    case 3: {  // another number, where one stands
      std::vector<std::pair<std::size_t, std::size_t>> numbers;
      std::copy_if(words.begin(), words.end(), std::back_inserter(numbers), [&](const auto& word) {
        return std::isdigit(static_cast<unsigned char>(text[word.first])) != 0 || text[word.first] == '-';
      });
      if (numbers.empty()) return;
      const auto [begin, length] = numbers[below(numbers.size())];
      text.replace(begin, length, kNumbers[below(kNumbers.size())]);
      return;
    }
    case 4: {  // another word of the text
      if (words.empty()) return;
      const auto [begin, length] = words[below(words.size())];
      const auto [from, count] = words[below(words.size())];
      text.replace(begin, length, text.substr(from, count));
      return;
    }
    case 5: {  // a line less
      const std::size_t begin = text.rfind('\n', below(text.size()));
      if (begin == std::string::npos) return;
      text.erase(begin, text.find('\n', begin + 1) - begin);
      return;
    }
    default: {  // a line twice
      const std::size_t begin = text.rfind('\n', below(text.size()));
      if (begin == std::string::npos) return;
      text.insert(begin, text.substr(begin, text.find('\n', begin + 1) - begin));
      return;
    }
  }
}

}  // namespace poseidon::caffe::testing_data
