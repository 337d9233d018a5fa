// The child's side of reading rows of HDF5 files by a list: writes them into a pipe, until nobody reads there any more.
// Like record_server.h, with a list of files in place of a data base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/data/record_reader.h"

namespace poseidon::caffe {

struct ServeHdf5Options {
  std::filesystem::path list;
  Hdf5Rows rows;
  // As in RecordReaderOptions. Index i is in pass i / N through the N rows of all files, and there row i mod N of its
  // order.
  std::uint64_t first = 0;
  std::uint64_t take = 1;
  std::uint64_t skip = 0;
};

// The names of files in a list; blanks of any kind separate them, as Caffe reads them. Throws ConfigError where there
// is none.
std::vector<std::string> parse_file_list(std::string_view text, const std::string& file_name);

// Returns when the pipe's other end is closed. Throws ConfigError for a list or file that cannot be used, when frames
// up to there have been written; the caller sends it as the last frame.
void serve_hdf5(const ServeHdf5Options& options, int pipe);

}  // namespace poseidon::caffe
