// poseidon-data: reads data bases for trainers. `poseidon` starts it; people need not.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <string_view>

#include "apps/poseidon-data/commands.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::data {
namespace {

constexpr const char* kUsage =
    "poseidon-data does for the command poseidon what touches data bases and image files.\n"
    "\n"
    "  poseidon-data read --database FOLDER ...\n"
    "  poseidon-data read --images LIST ...\n"
    "  poseidon-data read --windows LIST ...\n"
    "  poseidon-data read --hdf5 LIST ...\n"
    "      write records into a pipe, for a trainer\n"
    "  poseidon-data convert-hdf5 CONVERSION\n"
    "      turns bytes of HDF5 files into others, for a trainer\n"
    "  poseidon-data write-rows ...\n"
    "      turns files of numbers into a data base or an HDF5 file, for `poseidon features`\n"
    "  poseidon-data convert-cifar, convert-images, convert-mnist, draw-net, image-mean, parse-log, partition-data,\n"
    "  plot-log ...\n"
    "      the same as `poseidon convert-cifar` and so on\n"
    "\n"
    "`poseidon-data SUBCOMMAND --help` says more.\n";

using Command = int (*)(const std::vector<std::string>& arguments);

const std::map<std::string_view, Command>& tools() {
  static const std::map<std::string_view, Command> by_name = {
      {"convert-cifar", &convert_cifar_command},
      {"convert-hdf5", &convert_hdf5_command},
      {"convert-mnist", &convert_mnist_command},
      {"draw-net", &draw_net_command},
      {"image-mean", &image_mean_command},
      {"parse-log", &parse_log_command},
      {"partition-data", &partition_data_command},
      {"write-rows", &write_rows_command},
  };
  return by_name;
}

// This process goes on as poseidon-images, which lies beside us and knows image files. Returns only on failure.
[[noreturn]] void become_images(std::vector<std::string> arguments) {
  const std::filesystem::path program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "poseidon-images";
  arguments.insert(arguments.begin(), program.string());
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  ::execv(program.c_str(), raw.data());
  throw caffe::ConfigError(
      base::concat("cannot start ", program.string(), ", which reads image files: ", std::strerror(errno)));
}

caffe::DecodeFn decode_by_becoming_images(caffe::ImageColor, const std::vector<std::string>& arguments) {
  return [arguments](const caffe::EncodedRecord& record) -> std::string {
    std::vector<std::string> all = {"read"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.insert(all.end(), {"--go-on-at", std::to_string(record.index)});
    become_images(std::move(all));
  };
}

template <typename Options>
void serve_by_becoming_images(const Options&, const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {"read"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  become_images(std::move(all));
}

void serve_hdf5_here(const caffe::ServeHdf5Options& options) {
  caffe::serve_hdf5(options, STDOUT_FILENO);
}

int run(const std::vector<std::string>& arguments) {
  const std::string subcommand = arguments.empty() ? "" : arguments.front();
  const std::vector<std::string> rest(arguments.empty() ? arguments.end() : arguments.begin() + 1, arguments.end());
  if (subcommand == "read") {
    return read_command(rest, {.decodes_here = false,
                               .make_decode = &decode_by_becoming_images,
                               .serve_images = &serve_by_becoming_images,
                               .serve_windows = &serve_by_becoming_images,
                               .serve_hdf5 = &serve_hdf5_here});
  }
  if (subcommand == "convert-images" || subcommand == "plot-log") become_images(arguments);
  if (const auto tool = tools().find(subcommand); tool != tools().end()) return tool->second(rest);
  const bool help = subcommand == "--help" || subcommand == "-h" || subcommand == "help";
  std::fputs(kUsage, help ? stdout : stderr);
  return help ? kSuccess : kWrongUsage;
}

}  // namespace
}  // namespace poseidon::data

int main(int argc, char** argv) {
  try {
    return poseidon::data::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "poseidon-data: %s\n", error.what());
    return poseidon::data::kBroken;
  }
}
