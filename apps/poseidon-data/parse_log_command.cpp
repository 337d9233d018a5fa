#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/tools/parse_log.h"

namespace poseidon::data {
namespace {

using base::concat;
namespace fs = std::filesystem;

constexpr std::array<std::string_view, 1> kSwitches = {"verbose"};

constexpr const char* kDescription =
    "Makes two tables of the log of a training: Caffe's parse_log.py.\n"
    "\n"
    "LOG is a log of Caffe's, or what `poseidon train` printed. OUTPUT_FOLDER/LOG.train and OUTPUT_FOLDER/LOG.test have the\n"
    "columns NumIters, Seconds, LearningRate, and one for each output. In Poseidon's logs the seconds are reckoned from the\n"
    "samples per second.";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon train --solver examples/digits/lenet_solver.prototxt --iterations 40 > lenet.log\n"
    "  poseidon parse-log lenet.log .\n"
    "  poseidon parse-log --delimiter ';' --verbose lenet.log .";

void write_table(const fs::path& file, const std::string& table, bool verbose) {
  const Status written = base::write_file_atomically(file, std::string_view(table));
  if (!written) throw caffe::SystemError(written.error().message);
  if (verbose) std::printf("wrote %s\n", file.c_str());
}

void parse_file(const fs::path& log, const fs::path& folder, const std::string& delimiter, bool verbose) {
  std::error_code failure;
  if (!fs::is_directory(folder, failure)) throw caffe::ConfigError(concat("there is no folder ", folder.string()));
  const Result<std::string> text = base::read_file(log);
  if (!text) throw caffe::ConfigError(text.error().message);
  const caffe::TrainingLog parsed = caffe::parse_log(*text, log.string());
  const std::string name = (folder / log.filename()).string();
  write_table(name + ".train", caffe::log_table(parsed.train, delimiter[0]), verbose);
  write_table(name + ".test", caffe::log_table(parsed.test, delimiter[0]), verbose);
  std::printf("%s: %zu rows of training, %zu of testing\n", log.c_str(), parsed.train.size(), parsed.test.size());
}

// One character, as CLI11's checks say it.
std::string is_one_character(const std::string& text) { return text.size() == 1 ? "" : "must be one character"; }

}  // namespace

int parse_log_command(const std::vector<std::string>& arguments) {
  fs::path log;
  fs::path folder;
  std::string delimiter = ",";
  bool verbose = false;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("LOG", log, "the log")->required();
  app.add_option("OUTPUT_FOLDER", folder, "where the two tables are written")->required();
  app.add_option("--delimiter", delimiter, "between columns")->check(is_one_character)->capture_default_str();
  app.add_flag("--verbose", verbose, "name the files that are written");
  return run_tool({"poseidon parse-log", kSwitches}, app, arguments, [&] { parse_file(log, folder, delimiter, verbose); });
}

}  // namespace poseidon::data
