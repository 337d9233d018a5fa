// Lists of image files, a path and a label in each line, and the order in which passes go through one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/philox.h"

namespace poseidon::caffe {

// One line of a list: "cats/tabby one.jpg 3". The label is what follows the last blank.
struct ListedImage {
  std::string path;  // what stands before it; below a folder that somebody else knows
  int label = 0;
  std::size_t line = 0;  // from 1
};
// Throws ConfigError naming the line. Empty lines are passed over.
std::vector<ListedImage> parse_image_list(std::string_view text, const std::string& file_name);
std::vector<ListedImage> read_image_list(const std::filesystem::path& file);

// Fisher and Yates, with draws that are the same on every machine: one order for each `round` of a stream.
template <typename Item>
void shuffle(std::span<Item> items, const base::RandomStream& random, std::uint64_t round) {
  for (std::size_t i = items.size(); i > 1; --i) {
    const base::PhiloxCounter words = random.words(round, i, 0);
    const std::uint64_t wide = (std::uint64_t{words[0]} << 32) | words[1];
    std::swap(items[i - 1], items[wide % i]);
  }
}

}  // namespace poseidon::caffe
