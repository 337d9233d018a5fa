// The subcommands of poseidon-data and poseidon-images. Each takes its own arguments, without the program's and its own
// name, prints what is wrong to standard error, and returns the exit code of the process.
#pragma once

#include <string>
#include <vector>

#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/record_server.h"

namespace poseidon::data {

constexpr int kSuccess = 0;
constexpr int kBroken = 1;         // the program itself
constexpr int kWrongUsage = 2;     // flags that do not exist, or lack a value
constexpr int kWrongInput = 3;     // a file, list or data base that cannot be used
constexpr int kSystem = 5;         // the operating system said no: disk full
constexpr int kInterrupted = 130;  // Ctrl-C

// Makes what decodes images of this color. Given read_command's own arguments too.
using MakeDecodeFn = caffe::DecodeFn (*)(caffe::ImageColor color, const std::vector<std::string>& arguments);

// Writes records into standard output, for a trainer; see engines/caffe/data/record_protocol.h.
int read_command(const std::vector<std::string>& arguments, MakeDecodeFn make_decode);
// Of poseidon-images only.
int convert_images_command(const std::vector<std::string>& arguments);
// Of poseidon-images only; for `poseidon plan --plot`.
int plot_command(const std::vector<std::string>& arguments);

}  // namespace poseidon::data
