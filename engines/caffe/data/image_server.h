// The child's side of reading image files by a list: decodes them on several threads and writes them into a pipe as
// records, until nobody reads there any more. Like record_server.h, with a list in place of a data base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "engines/caffe/data/record_reader.h"

namespace poseidon::caffe {

struct ServeImagesOptions {
  std::filesystem::path list;
  ImageFiles files;
  ImageColor color = ImageColor::kColor;
  // As in RecordReaderOptions. Index i is in pass i / N through the N images, and there number i mod N of its order.
  std::uint64_t first = 0;
  std::uint64_t take = 1;
  std::uint64_t skip = 0;
  std::size_t threads = 1;  // that decode; they change nothing in what is written
};

// Returns when the pipe's other end is closed. Throws ConfigError for a list or image that cannot be used, when frames
// up to there have been written; the caller sends it as the last frame.
void serve_images(const ServeImagesOptions& options, int pipe);

}  // namespace poseidon::caffe
