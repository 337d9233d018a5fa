#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/usage.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/data/hdf5_model.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::data {
namespace {

using namespace poseidon::caffe;

std::string read_all() {
  std::string bytes;
  std::string block(std::size_t{1} << 20, '\0');
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::runtime_error("standard input cannot be read");
    if (got == 0) return bytes;
    bytes.append(block, 0, static_cast<std::size_t>(got));
  }
}

void write_all(const std::string& bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  if (std::fflush(stdout) != 0) throw std::runtime_error("standard output cannot be written");
}

std::string checked(Result<std::string> bytes) {
  if (!bytes) throw ConfigError(bytes.error().message);
  return std::move(bytes).value();
}

std::string convert(const std::string& conversion, const std::string& bytes, const std::string& name) {
  if (conversion == to_string(Hdf5Conversion::kModelFrom)) {
    return checked(proto::model_bytes(parse_hdf5_model(bytes, name)));
  }
  if (conversion == to_string(Hdf5Conversion::kModelTo)) {
    return hdf5_model_bytes(proto::parse_model(bytes, name, proto::Diffs::kRead));
  }
  if (conversion == to_string(Hdf5Conversion::kStateFrom)) {
    return checked(proto::solver_state_bytes(parse_hdf5_state(bytes, name)));
  }
  return hdf5_state_bytes(proto::parse_solver_state(bytes, name));
}

}  // namespace

int convert_hdf5_command(const std::vector<std::string>& arguments) {
  std::string conversion;
  std::string name;
  CLI::App app;
  app.name("poseidon-data convert-hdf5");
  app.description(
      "Turns a model or a solver's state from HDF5 into Caffe's protobuf form, or the other way round: from standard\n"
      "input to standard output, for a trainer of Poseidon.");
  app.add_option("CONVERSION", conversion, "model-from, model-to, state-from or state-to")
      ->required()
      ->check(CLI::IsMember({"model-from", "model-to", "state-from", "state-to"}));
  app.add_option("--name", name, "of the file, for messages");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return report(app, error);
  }
  const rlimit no_core{0, 0};  // dying of a damaged file is what we are for
  ::setrlimit(RLIMIT_CORE, &no_core);
  try {
    write_all(convert(conversion, read_all(), name));
    return kSuccess;
  } catch (const ConfigError& error) {
    write_all(error.what());
    return kWrongInput;
  } catch (const std::bad_alloc&) {
    write_all("out of memory");
    return kSystem;
  }
}

}  // namespace poseidon::data
