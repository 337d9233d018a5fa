// The two files of an MNIST data set become a data base: Caffe's convert_mnist_data.
//
// The files are in the format IDX (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist): numbers of 32 bits with
// the highest byte first. Images: magic number 2051, how many, rows, columns, then a byte a pixel. Labels: magic number
// 2049, how many, then a byte a label. Fashion-MNIST, EMNIST and others come as such files too.
#pragma once

#include <cstddef>
#include <filesystem>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/tools/progress.h"

namespace poseidon::caffe {

struct ConvertMnistOptions {
  std::filesystem::path images;
  std::filesystem::path labels;
  std::filesystem::path database;  // that is made
  Backend backend = Backend::kLmdb;
  bool overwrite = false;
};

struct ConvertMnistReport {
  std::size_t records = 0;
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t labels = 0;  // different ones
};

// Keys are Caffe's: the number of the image, "00000012". Throws ConfigError for files that are not what they should be,
// before anything is written; SystemError for the disk.
ConvertMnistReport convert_mnist(const ConvertMnistOptions& options, const ProgressFn& on_progress);

}  // namespace poseidon::caffe
