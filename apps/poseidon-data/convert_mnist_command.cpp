#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "engines/caffe/tools/convert_mnist.h"

namespace poseidon::data {
namespace {

constexpr std::array<std::string_view, 1> kSwitches = {"overwrite"};

constexpr const char* kDescription =
    "Makes a data base from the two files of an MNIST data set: Caffe's convert_mnist_data.\n"
    "\n"
    "IMAGES and LABELS are files in the format IDX, unpacked: train-images-idx3-ubyte and train-labels-idx1-ubyte, or\n"
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte. DB_NAME is the folder that is made.";

constexpr const char* kExamples =
    "Examples, with two images that `printf` writes:\n"
    "  printf '\\0\\0\\10\\3\\0\\0\\0\\2\\0\\0\\0\\1\\0\\0\\0\\1\\0\\377' > two-images-idx3-ubyte; "
    "printf '\\0\\0\\10\\1\\0\\0\\0\\2\\7\\3' > two-labels-idx1-ubyte\n"
    "  poseidon convert-mnist two-images-idx3-ubyte two-labels-idx1-ubyte two_lmdb\n"
    "  poseidon convert-mnist --overwrite two-images-idx3-ubyte two-labels-idx1-ubyte two_lmdb";

void convert(const caffe::ConvertMnistOptions& options) {
  ProgressLine progress("images");
  const caffe::ConvertMnistReport report = caffe::convert_mnist(options, progress.function());
  std::printf("%s: %zu images [1, %zu, %zu] with %zu labels, in %s\n", options.database.c_str(), report.records, report.rows,
              report.columns, report.labels, progress.time().c_str());
}

}  // namespace

int convert_mnist_command(const std::vector<std::string>& arguments) {
  caffe::ConvertMnistOptions options;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("IMAGES", options.images, "file with the images")->required();
  app.add_option("LABELS", options.labels, "file with their labels")->required();
  app.add_option("DB_NAME", options.database, "the data base to make")->required();
  add_backend(app, options.backend);
  add_overwrite(app, options.overwrite);
  return run_tool({"poseidon convert-mnist", kSwitches}, app, arguments, [&] { convert(options); });
}

}  // namespace poseidon::data
