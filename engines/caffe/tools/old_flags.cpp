#include "engines/caffe/tools/old_flags.h"

#include <algorithm>
#include <cctype>

namespace poseidon::caffe {
namespace {

std::string modern(const std::string& argument, std::span<const std::string_view> switches) {
  const std::size_t dashes = argument.find_first_not_of('-');
  if (dashes == std::string::npos || dashes < 1 || dashes > 2) return argument;
  const std::size_t name_end = std::min(argument.find('='), argument.size());
  std::string name = argument.substr(dashes, name_end - dashes);
  // A single letter is a short option of today; a digit begins a negative number.
  if (name.size() < 2 || std::isalpha(static_cast<unsigned char>(name.front())) == 0) return argument;
  std::replace(name.begin(), name.end(), '_', '-');
  const bool is_switched_off =
      name.starts_with("no") && name_end == argument.size() &&
      std::find(switches.begin(), switches.end(), std::string_view(name).substr(2)) != switches.end();
  if (is_switched_off) return "--" + name.substr(2) + "=false";
  return "--" + name + argument.substr(name_end);
}

}  // namespace

std::vector<std::string> modern_spelling(std::span<const std::string> arguments,
                                         std::span<const std::string_view> switches) {
  std::vector<std::string> out;
  bool all_positional = false;
  for (const std::string& argument : arguments) {
    all_positional = all_positional || argument == "--";
    out.push_back(all_positional ? argument : modern(argument, switches));
  }
  return out;
}

}  // namespace poseidon::caffe
