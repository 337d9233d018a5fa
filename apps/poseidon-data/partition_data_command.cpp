#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "engines/caffe/tools/partition_data.h"

namespace poseidon::data {
namespace {

constexpr std::array<std::string_view, 2> kSwitches = {"turn", "overwrite"};

constexpr const char* kDescription =
    "Cuts a data base into parts, NAME_0, NAME_1, ...\n"
    "\n"
    "A part is a run of records, or every PARTS-th record with --turn. `poseidon train` needs no parts: its workers share one\n"
    "data base out among themselves. They are for disks that each hold a part, and for other programs.";

constexpr const char* kExamples =
    "Examples, with the data base that examples/digits/create_lmdb.sh makes:\n"
    "  poseidon partition-data examples/digits/digits_test_lmdb 4 test_part\n"
    "  poseidon partition-data --turn --overwrite examples/digits/digits_test_lmdb 4 test_part";

void partition(const caffe::PartitionDataOptions& options) {
  ProgressLine progress("records");
  for (const caffe::DataPart& part : caffe::partition_data(options, progress.function())) {
    std::printf("%s: %zu records\n", part.database.c_str(), part.records);
  }
}

}  // namespace

int partition_data_command(const std::vector<std::string>& arguments) {
  caffe::PartitionDataOptions options;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("INPUT_DB", options.database, "the folder of the data base")->required();
  app.add_option("PARTS", options.parts, "how many")->required()->check(CLI::Range(1, 10'000));
  app.add_option("NAME", options.name, "of the parts; left out: the data base's");
  app.add_flag("--turn", options.in_turn, "deal records out in turn: record i goes to part i modulo PARTS");
  add_backend(app, options.backend);
  add_overwrite(app, options.overwrite);
  return run_tool({"poseidon partition-data", kSwitches}, app, arguments, [&] { partition(options); });
}

}  // namespace poseidon::data
