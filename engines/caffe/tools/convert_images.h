// A list of image files and labels becomes a data base: Caffe's convert_imageset.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe {

// One line of a list: "cats/tabby one.jpg 3". The label is what follows the last blank.
struct ListedImage {
  std::string path;  // below the root folder
  int label = 0;
  std::size_t line = 0;  // from 1
};
// Throws ConfigError naming the line. Empty lines are passed over.
std::vector<ListedImage> parse_image_list(std::string_view text, const std::string& file_name);

struct ConvertImagesOptions {
  std::filesystem::path root;
  std::filesystem::path list;
  std::filesystem::path database;  // an LMDB that is made
  bool gray = false;
  // The order of the records is that of the list, or random: a fixed shuffle for each seed.
  bool shuffle = false;
  std::uint64_t seed = 1;
  int resize_width = 0;  // both or none
  int resize_height = 0;
  bool check_size = false;  // all images must have one size
  bool encoded = false;     // keep image files, not pixels
  std::string encode_type;  // of this kind; the file's own where empty. Implies `encoded`
  bool skip_unreadable = false;
  bool overwrite = false;
  unsigned threads = 0;  // that read and decode; 0: as many as there are cores
};

struct ConvertProgress {
  std::size_t done = 0;
  std::size_t total = 0;
};

struct ConvertImagesReport {
  std::size_t written = 0;
  std::size_t skipped = 0;  // unreadable ones
  std::size_t labels = 0;   // different ones
  std::string extents;      // "[1, 28, 28]"; "of several sizes"; "encoded"
};

// Keys are Caffe's: the place in the list, then the path: "00000012_cats/tabby.jpg". Nothing stands under the name of
// the data base before it is complete. `on_progress` is called now and then, in this thread; `on_skip` for each image
// that is passed over. Throws ConfigError for whatever is wrong with files, list or disk; returns nothing when `stop`
// became true, and then has removed what it wrote.
std::optional<ConvertImagesReport> convert_images(const ConvertImagesOptions& options,
                                                  const std::function<void(ConvertProgress)>& on_progress,
                                                  const std::function<void(const std::string&)>& on_skip,
                                                  const std::atomic<bool>& stop);

}  // namespace poseidon::caffe
