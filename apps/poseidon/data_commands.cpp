// The subcommands that live in another program, because what reads data bases and image files draws in libraries that the
// trainer is better without (engines/caffe/data/record_reader.h).
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "apps/poseidon/command.h"

namespace poseidon::app {
namespace {

int run_data_program(const char* subcommand, const std::vector<std::string>& arguments) {
  std::error_code ignored;
  std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / "poseidon-data";
  if (const char* const other = std::getenv("POSEIDON_DATA_PROGRAM")) program = other;
  std::vector<std::string> words = {program.string(), subcommand};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execv(program.c_str(), pointers.data());
  std::fprintf(stderr, "poseidon %s: cannot run %s, which belongs beside this program: %s\n", subcommand, program.c_str(),
               std::strerror(errno));
  return kSystem;
}

}  // namespace

int convert_cifar_command(const std::vector<std::string>& arguments) { return run_data_program("convert-cifar", arguments); }
int convert_images_command(const std::vector<std::string>& arguments) { return run_data_program("convert-images", arguments); }
int convert_mnist_command(const std::vector<std::string>& arguments) { return run_data_program("convert-mnist", arguments); }
int draw_net_command(const std::vector<std::string>& arguments) { return run_data_program("draw-net", arguments); }
int image_mean_command(const std::vector<std::string>& arguments) { return run_data_program("image-mean", arguments); }
int parse_log_command(const std::vector<std::string>& arguments) { return run_data_program("parse-log", arguments); }
int partition_data_command(const std::vector<std::string>& arguments) { return run_data_program("partition-data", arguments); }
int plot_log_command(const std::vector<std::string>& arguments) { return run_data_program("plot-log", arguments); }

}  // namespace poseidon::app
