#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <new>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/usage.h"
#include "engines/caffe/data/row_shapes.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/tools/write_rows.h"

namespace poseidon::data {
namespace {

using namespace poseidon::caffe;

// One of each for each array.
struct Arrays {
  std::vector<std::string> names;
  std::vector<std::string> files;
  std::vector<std::string> shapes;
  std::vector<std::uint64_t> offsets;
};

std::vector<RowArray> arrays_of(const Arrays& given) {
  const std::size_t count = given.names.size();
  if (given.files.size() != count || given.shapes.size() != count || given.offsets.size() != count) {
    throw ConfigError("each array needs --name, --file, --shape and --offset");
  }
  std::vector<RowArray> arrays;
  for (std::size_t i = 0; i < count; ++i) {
    arrays.push_back({.name = given.names[i],
                      .file = given.files[i],
                      .offset = given.offsets[i],
                      .shape = parse_row_shapes(given.shapes[i]).front()});
  }
  return arrays;
}

}  // namespace

// Standard output is read by who started us: it is the sentence that says what was wrong.
int write_rows_command(const std::vector<std::string>& arguments) {
  WriteRowsOptions options;
  Arrays arrays;
  const std::map<std::string, RowsFormat> formats = {
      {"hdf5", RowsFormat::kHdf5}, {"leveldb", RowsFormat::kLevelDb}, {"lmdb", RowsFormat::kLmdb}};
  CLI::App app;
  app.name("poseidon-data write-rows");
  app.description("Makes a data base or an HDF5 file of files that hold numbers one after the other.");
  app.add_option("--to", options.to, "what is made; replaced if it exists")->required();
  app.add_option("--format", options.format, "hdf5, leveldb or lmdb")->required()->transform(CLI::Transformer(formats));
  app.add_flag("--double", options.in_double, "the numbers are double, not float");
  app.add_option("--name", arrays.names, "of an array: its dataset's in HDF5")->required();
  app.add_option("--file", arrays.files, "where its numbers are");
  app.add_option("--shape", arrays.shapes, "its extents: 100x3x4");
  app.add_option("--offset", arrays.offsets, "at which byte of the file they begin");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return report(app, error);
  }
  // A file that grows over the user's limit is an error to report, not a reason to die.
  ::signal(SIGXFSZ, SIG_IGN);
  try {
    options.arrays = arrays_of(arrays);
    write_rows(options);
    return kSuccess;
  } catch (const ConfigError& error) {
    std::fputs(error.what(), stdout);
    return kWrongInput;
  } catch (const SystemError& error) {
    std::fputs(error.what(), stdout);
    return kSystem;
  } catch (const std::bad_alloc&) {
    std::fputs("out of memory", stdout);
    return kSystem;
  }
}

}  // namespace poseidon::data
