#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "engines/caffe/proto/blob_file.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/tools/image_mean.h"

namespace poseidon::data {
namespace {

constexpr const char* kDescription =
    "Computes the mean of all images of a data base: Caffe's compute_image_mean.\n"
    "\n"
    "Prints the mean of each channel, for mean_value of a transform_param, and writes the mean image to OUTPUT_FILE, for\n"
    "mean_file. All images must have one size; encoded ones are decoded.";

constexpr const char* kExamples =
    "Examples, with the data base that examples/digits/create_lmdb.sh makes:\n"
    "  poseidon image-mean examples/digits/digits_train_lmdb\n"
    "  poseidon image-mean examples/digits/digits_train_lmdb digits_mean.binaryproto";

void compute(const std::filesystem::path& database, std::optional<caffe::Backend> backend, const std::filesystem::path& output) {
  ProgressLine progress("records");
  const caffe::ImageMean mean = caffe::image_mean(database, backend, progress.function());
  if (!output.empty()) {
    const Status written = caffe::proto::write_blob(output, mean.image);
    if (!written) throw caffe::SystemError(written.error().message);
  }
  std::printf("%s: %zu images of %zu channel%s, in %s\n", database.c_str(), mean.records, mean.channels.size(),
              mean.channels.size() == 1 ? "" : "s", progress.time().c_str());
  for (std::size_t c = 0; c < mean.channels.size(); ++c) std::printf("mean_value channel [%zu]: %.6g\n", c, mean.channels[c]);
}

}  // namespace

int image_mean_command(const std::vector<std::string>& arguments) {
  std::filesystem::path database;
  std::filesystem::path output;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("INPUT_DB", database, "the folder of the data base")->required();
  app.add_option("OUTPUT_FILE", output, "the mean image that is written (.binaryproto); left out: none");
  std::optional<caffe::Backend> backend;
  add_backend(app, backend);
  return run_tool({"poseidon image-mean", {}}, app, arguments, [&] { compute(database, backend, output); });
}

}  // namespace poseidon::data
