// The subcommands of poseidon-data and poseidon-images. Each takes its own arguments, without the program's and its own
// name, prints what is wrong to standard error, and returns the exit code of the process.
#pragma once

#include <string>
#include <vector>

#include "engines/caffe/data/hdf5_server.h"
#include "engines/caffe/data/image_server.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/record_server.h"
#include "engines/caffe/data/window_server.h"

namespace poseidon::data {

constexpr int kSuccess = 0;
constexpr int kBroken = 1;         // the program itself
constexpr int kWrongUsage = 2;     // flags that do not exist, or lack a value
constexpr int kWrongInput = 3;     // a file, list or data base that cannot be used
constexpr int kSystem = 5;         // the operating system said no: disk full
constexpr int kInterrupted = 130;  // Ctrl-C

// What read_command does with image files, given its own arguments too: poseidon-data becomes poseidon-images.
struct ImageHandling {
  bool decodes_here = false;  // on several threads, then; another program is started by one thread when all is written
  // Makes what decodes encoded records to this color.
  caffe::DecodeFn (*make_decode)(caffe::ImageColor color, const std::vector<std::string>& arguments);
  void (*serve_images)(const caffe::ServeImagesOptions& options, const std::vector<std::string>& arguments);
  void (*serve_windows)(const caffe::ServeWindowsOptions& options, const std::vector<std::string>& arguments);
  void (*serve_hdf5)(const caffe::ServeHdf5Options& options);
};

// Writes records into standard output, for a trainer; see engines/caffe/data/record_protocol.h.
int read_command(const std::vector<std::string>& arguments, const ImageHandling& handling);

// Bytes of HDF5 files from standard input to standard output, for a trainer; see engines/caffe/data/data_filter.h.
int convert_hdf5_command(const std::vector<std::string>& arguments);
// Files of numbers become a data base or an HDF5 file, for `poseidon features` and the layer HDF5Output.
int write_rows_command(const std::vector<std::string>& arguments);

// Of poseidon-data, for people; `poseidon` forwards them.
int convert_cifar_command(const std::vector<std::string>& arguments);
int convert_mnist_command(const std::vector<std::string>& arguments);
int draw_net_command(const std::vector<std::string>& arguments);
int image_mean_command(const std::vector<std::string>& arguments);
int parse_log_command(const std::vector<std::string>& arguments);
int partition_data_command(const std::vector<std::string>& arguments);

// Of poseidon-images. The last one is for `poseidon plan --plot`.
int convert_images_command(const std::vector<std::string>& arguments);
int plot_log_command(const std::vector<std::string>& arguments);
int plot_command(const std::vector<std::string>& arguments);

}  // namespace poseidon::data
