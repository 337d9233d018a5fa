// Commands that come as one text, as the published edition's psd_run took them. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::launch {

// The words of a text, as a POSIX shell parts them: at blanks, with '...', "..." and \ around what belongs together. Nothing is expanded.
// Assignments in front (A=1 python train.py) become an `env` in front. kInvalid where a quotation has no end, or there is no word.
Result<std::vector<std::string>> split_words(std::string_view text);

// One command for each worker, where the text has as many parts between commas as there are workers and more than one; otherwise one
// for all, commas and all.
Result<std::vector<std::vector<std::string>>> split_commands(std::string_view text, std::size_t workers);

}  // namespace poseidon::launch
