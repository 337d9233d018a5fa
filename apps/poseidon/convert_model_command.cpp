// `poseidon convert-model`: a trained model from one format to another.
#include <cstdio>
#include <filesystem>

#include "apps/poseidon/command.h"
#include "base/text.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/safetensors_file.h"

namespace poseidon::app {
namespace {

using caffe::proto::TrainedNet;

enum class Format { kCaffe, kHdf5, kSafetensors };

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon convert-model examples/digits/snapshots/lenet_iter_600.caffemodel lenet.safetensors\n"
    "  poseidon convert-model lenet.safetensors lenet.caffemodel\n"
    "  poseidon convert-model lenet.safetensors lenet.caffemodel.h5";

Format format_of(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  if (name.ends_with(".caffemodel")) return Format::kCaffe;
  if (name.ends_with(".h5")) return Format::kHdf5;
  if (name.ends_with(".safetensors")) return Format::kSafetensors;
  throw caffe::ConfigError(
      base::concat(file.string(), ": of which format? A name that ends with .caffemodel, .caffemodel.h5 or .safetensors says so"));
}

TrainedNet read(const std::filesystem::path& file) {
  return format_of(file) == Format::kSafetensors ? caffe::proto::read_safetensors(file) : caffe::read_any_model(file);
}

Status write(const std::filesystem::path& file, const TrainedNet& net) {
  if (format_of(file) == Format::kSafetensors) return caffe::proto::write_safetensors(file, net);
  return format_of(file) == Format::kCaffe ? caffe::proto::write_model(file, net) : caffe::write_hdf5_model(file, net);
}

}  // namespace

int convert_model_command(const std::vector<std::string>& arguments) {
  std::string from;
  std::string to;
  CLI::App app;
  app.name("poseidon convert-model");
  app.description("Writes a trained model in another format: Caffe's .caffemodel or .caffemodel.h5, or .safetensors, which\n"
                  "PyTorch's users have. Arrays are called LAYER.weight and LAYER.bias there.");
  app.footer(kExamples);
  app.add_option("from", from, "the model to read")->required();
  app.add_option("to", to, "the file to write; replaced if it exists")->required();
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  format_of(to);  // before a large file is read
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
