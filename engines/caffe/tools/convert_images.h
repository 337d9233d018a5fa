// A list of image files and labels becomes a data base: Caffe's convert_imageset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/tools/progress.h"

namespace poseidon::caffe {

struct ConvertImagesOptions {
  std::filesystem::path root;
  std::filesystem::path list;
  std::filesystem::path database;  // that is made
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
  Backend backend = Backend::kLmdb;
  bool overwrite = false;
  unsigned threads = 0;  // that read and decode; 0: as many as there are cores
};

struct ConvertImagesReport {
  std::size_t written = 0;
  std::size_t skipped = 0;  // unreadable ones
  std::size_t labels = 0;   // different ones
  std::string extents;      // "[1, 28, 28]"; "of several sizes"; "encoded"
};

// Keys are Caffe's: the place in the list, then the path: "00000012_cats/tabby.jpg". Nothing stands under the name of
// the data base before it is complete. `on_skip` is called for each image that is passed over. Throws ConfigError for
// whatever is wrong with files or list, SystemError for the disk.
ConvertImagesReport convert_images(const ConvertImagesOptions& options, const ProgressFn& on_progress,
                                   const std::function<void(const std::string&)>& on_skip);

}  // namespace poseidon::caffe
