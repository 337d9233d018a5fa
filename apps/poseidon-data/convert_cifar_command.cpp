#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "engines/caffe/tools/convert_cifar.h"

namespace poseidon::data {
namespace {

constexpr std::array<std::string_view, 1> kSwitches = {"overwrite"};

constexpr const char* kDescription =
    "Makes two data bases from the binary version of CIFAR-10: Caffe's convert_cifar_data.\n"
    "\n"
    "INPUT_FOLDER has data_batch_1.bin to data_batch_5.bin and test_batch.bin. cifar10_train_lmdb and cifar10_test_lmdb are\n"
    "made in OUTPUT_FOLDER, or cifar10_train_leveldb and cifar10_test_leveldb.";

constexpr const char* kExamples =
    "Examples, with batches of one black image each that `head` writes:\n"
    "  mkdir -p tiny_cifar; for batch in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do "
    "head -c 3073 /dev/zero > tiny_cifar/$batch.bin; done\n"
    "  poseidon convert-cifar tiny_cifar tiny_cifar\n"
    "  poseidon convert-cifar --overwrite tiny_cifar tiny_cifar lmdb";

void convert(const caffe::ConvertCifarOptions& options) {
  ProgressLine progress("batches");
  const caffe::ConvertCifarReport report = caffe::convert_cifar(options, progress.function());
  std::printf("%s: %zu images [3, 32, 32]\n%s: %zu images [3, 32, 32], in %s\n", report.train.c_str(), report.train_records,
              report.test.c_str(), report.test_records, progress.time().c_str());
}

}  // namespace

int convert_cifar_command(const std::vector<std::string>& arguments) {
  caffe::ConvertCifarOptions options;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("INPUT_FOLDER", options.input, "where the six batches are")->required();
  app.add_option("OUTPUT_FOLDER", options.output, "where the two data bases are made")->required();
  app.add_option_function<std::string>(
         "BACKEND", [&options](const std::string& name) { options.backend = *caffe::backend_called(name); },
         "the kind of the data bases: lmdb or leveldb")
      ->check(CLI::IsMember({"lmdb", "leveldb"}))
      ->default_str("lmdb");
  add_overwrite(app, options.overwrite);
  return run_tool({"poseidon convert-cifar", kSwitches}, app, arguments, [&] { convert(options); });
}

}  // namespace poseidon::data
