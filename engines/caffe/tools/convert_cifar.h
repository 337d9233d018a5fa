// The binary version of CIFAR-10 becomes two data bases: Caffe's convert_cifar_data.
//
// A batch (Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html) is a run of records of 3,073 bytes: the label, 0 to
// 9, then 32 x 32 pixels of red, of green and of blue.
#pragma once

#include <cstddef>
#include <filesystem>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/tools/progress.h"

namespace poseidon::caffe {

struct ConvertCifarOptions {
  std::filesystem::path input;   // the folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin
  std::filesystem::path output;  // the folder where the two data bases are made
  Backend backend = Backend::kLmdb;
  bool overwrite = false;
};

struct ConvertCifarReport {
  std::filesystem::path train;  // OUTPUT/cifar10_train_lmdb, or _leveldb
  std::filesystem::path test;   // OUTPUT/cifar10_test_lmdb, or _leveldb
  std::size_t train_records = 0;
  std::size_t test_records = 0;
};

// Keys are Caffe's, the number of the record with five digits, and so is the order of the channels, red first. Both
// data bases appear, or none. Throws ConfigError for files that are not what they should be, SystemError for the disk.
ConvertCifarReport convert_cifar(const ConvertCifarOptions& options, const ProgressFn& on_progress);

}  // namespace poseidon::caffe
