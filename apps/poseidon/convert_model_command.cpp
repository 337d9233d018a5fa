// `poseidon convert-model`: a trained model from one format to another.
#include <cstdio>
#include <filesystem>

#include "apps/poseidon/command.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/safetensors_file.h"

namespace poseidon::app {
namespace {

using caffe::proto::TrainedNet;

constexpr const char* kCaffe = ".caffemodel";
constexpr const char* kSafetensors = ".safetensors";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon convert-model examples/digits/snapshots/lenet_iter_600.caffemodel lenet.safetensors\n"
    "  poseidon convert-model lenet.safetensors lenet.caffemodel";

std::string kind_of(const std::filesystem::path& file) {
  const std::string extension = file.extension();
  if (extension == kCaffe || extension == kSafetensors) return extension;
  throw caffe::ConfigError(base::concat(file.string(), ": of which format? A name that ends with ", kCaffe, " or ", kSafetensors, " says so"));
}

TrainedNet read(const std::filesystem::path& file) {
  return kind_of(file) == kSafetensors ? caffe::proto::read_safetensors(file) : caffe::proto::read_model(file);
}

Status write(const std::filesystem::path& file, const TrainedNet& net) {
  return kind_of(file) == kSafetensors ? caffe::proto::write_safetensors(file, net) : caffe::proto::write_model(file, net);
}

}  // namespace

int convert_model_command(const std::vector<std::string>& arguments) {
  std::string from;
  std::string to;
  CLI::App app;
  app.name("poseidon convert-model");
  app.description("Writes a trained model in another format: Caffe's .caffemodel, or .safetensors, which PyTorch's users have.\n"
                  "Arrays are called LAYER.weight and LAYER.bias there.");
  app.footer(kExamples);
  app.add_option("from", from, "the model to read")->required();
  app.add_option("to", to, "the file to write; replaced if it exists")->required();
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  kind_of(to);  // before a large file is read
  const TrainedNet net = read(from);
  if (const Status written = write(to, net); !written) {
    std::fprintf(stderr, "poseidon convert-model: %s\n", written.error().message.c_str());
    return exit_code_of(written.error().code);
  }
  std::size_t arrays = 0;
  std::size_t numbers = 0;
  for (const caffe::proto::TrainedLayer& layer : net.layers) {
    arrays += layer.blobs.size();
    for (const caffe::proto::Blob& blob : layer.blobs) numbers += blob.count();
  }
  std::printf("%s: %zu layers, %zu arrays, %zu numbers\n", to.c_str(), net.layers.size(), arrays, numbers);
  return kSuccess;
}

}  // namespace poseidon::app
