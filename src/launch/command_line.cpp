#include "launch/command_line.h"

#include <utility>

#include "base/text.h"

namespace poseidon::launch {
namespace {

bool is_blank(char letter) { return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r'; }

bool is_assignment(const std::string& word) {
  const std::size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0 || (word.front() >= '0' && word.front() <= '9')) return false;
  return word.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == equals;
}

// The parts between commas that stand in no quotation.
std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> parts(1);
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    if (letter == ',' && quote == 0) {
      parts.emplace_back();
      continue;
    }
    if (quote == 0 && (letter == '\'' || letter == '"')) {
      quote = letter;
    } else if (letter == quote) {
      quote = 0;
    }
    parts.back() += letter;
    if (letter == '\\' && quote != '\'' && i + 1 < text.size()) parts.back() += text[++i];
  }
  return parts;
}

}  // namespace

Result<std::vector<std::string>> split_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool is_within = false;  // a word, which may be empty: ''
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    if (quote == 0 && is_blank(letter)) {
      if (is_within) words.push_back(std::exchange(word, {}));
      is_within = false;
      continue;
    }
    is_within = true;
    if (letter == '\\' && quote != '\'' && i + 1 < text.size()) {
      // Within "..." only these are quoted by it.
      const char next = text[++i];
      if (quote == '"' && next != '"' && next != '\\' && next != '$' && next != '`') word += letter;
      word += next;
    } else if (quote == 0 && (letter == '\'' || letter == '"')) {
      quote = letter;
    } else if (quote != 0 && letter == quote) {
      quote = 0;
    } else {
      word += letter;
    }
  }
  if (quote != 0) return Error{ErrorCode::kInvalid, base::concat("the command ", text, " has a ", quote, " without its end")};
  if (is_within) words.push_back(std::move(word));
  if (words.empty()) return Error{ErrorCode::kInvalid, "the command is empty"};
  if (is_assignment(words.front())) words.insert(words.begin(), "env");
  return words;
}

Result<std::vector<std::vector<std::string>>> split_commands(std::string_view text, std::size_t workers) {
  std::vector<std::string> parts = split_at_commas(text);
  if (parts.size() != workers || workers == 1) parts = {std::string(text)};
  std::vector<std::vector<std::string>> commands;
  for (const std::string& part : parts) {
    Result<std::vector<std::string>> words = split_words(part);
    if (!words) return words.error();
    commands.push_back(std::move(*words));
  }
  return commands;
}

}  // namespace poseidon::launch
