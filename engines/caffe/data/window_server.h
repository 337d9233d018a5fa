// The child's side of reading windows of images: draws them, decodes their images, cuts and warps them on several
// threads, and writes them into a pipe until nobody reads there any more. Like image_server.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "engines/caffe/data/record_reader.h"

namespace poseidon::caffe {

struct ServeWindowsOptions {
  std::filesystem::path list;  // a window file
  WindowFiles files;
  // As in RecordReaderOptions. take + skip is the number of records in a global batch: its last ones, of which
  // fg_fraction says the share, show objects.
  std::uint64_t first = 0;
  std::uint64_t take = 1;
  std::uint64_t skip = 0;
  std::size_t threads = 1;
};

void serve_windows(const ServeWindowsOptions& options, int pipe);

}  // namespace poseidon::caffe
