#include "engines/caffe/data/data_filter.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/data/child_program.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// The child's exit codes where its output is a sentence.
constexpr int kWrongInput = 3;
constexpr int kSystem = 5;

// A file in memory, which needs nobody at the other end as a pipe does.
Descriptor memory_file() {
  Descriptor file(::memfd_create("poseidon", MFD_CLOEXEC));
  if (file.get() < 0) throw SystemError(concat("cannot make a file in memory: ", std::strerror(errno)));
  return file;
}

void fill(const Descriptor& file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw SystemError(concat("cannot write a file in memory: ", std::strerror(errno)));
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  ::lseek(file.get(), 0, SEEK_SET);
}

std::string contents(const Descriptor& file) {
  struct stat status {};
  ::fstat(file.get(), &status);
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw SystemError(concat("cannot read a file in memory: ", std::strerror(errno)));
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

std::string read(const std::filesystem::path& file) {
  Result<std::string> bytes = base::read_file(file);
  if (!bytes) throw ConfigError(bytes.error().message);
  return std::move(bytes).value();
}

}  // namespace

std::string_view to_string(Hdf5Conversion conversion) {
  switch (conversion) {
    case Hdf5Conversion::kModelFrom:
      return "model-from";
    case Hdf5Conversion::kModelTo:
      return "model-to";
    case Hdf5Conversion::kStateFrom:
      return "state-from";
    case Hdf5Conversion::kStateTo:
      return "state-to";
  }
  return "unknown";
}

std::string run_data_program(const DataProgramRun& run) {
  const Descriptor input = memory_file();
  const Descriptor output = memory_file();
  fill(input, run.input);
  const std::filesystem::path program = data_program();
  std::vector<std::string> words = {program.string()};
  words.insert(words.end(), run.arguments.begin(), run.arguments.end());
  const pid_t child = spawn(program, std::move(words), input.get(), output.get());
  const bool ended = wait_for_death(child, run.wait_max);
  const int status = kill_and_collect(child);
  if (!ended) {
    throw SystemError(concat(run.name, ": poseidon-data took more than ",
                             base::readable_seconds(std::chrono::duration<double>(run.wait_max).count()),
                             "; the file may be damaged, or its disk stuck"));
  }
  if (WIFSIGNALED(status)) {
    const std::string death = signal_name(WTERMSIG(status));
    if (!is_death_of_damage(WTERMSIG(status))) {
      throw SystemError(
          concat(run.name, ": poseidon-data was ended by ", death, "; by somebody, or because memory is short"));
    }
    throw ConfigError(concat(run.name, ": is damaged: its reader died of ", death));
  }
  std::string result = contents(output);
  if (WEXITSTATUS(status) == 0) return result;
  if (WEXITSTATUS(status) == kWrongInput) throw ConfigError(result);
  if (WEXITSTATUS(status) == kSystem) throw SystemError(result);
  throw SystemError(concat(run.name, ": poseidon-data ended with exit code ", WEXITSTATUS(status)));
}

std::string convert_hdf5(Hdf5Conversion conversion, std::string_view bytes, const std::string& name,
                         std::chrono::milliseconds wait_max) {
  // The name is in one word with its flag: it may begin with a dash.
  return run_data_program({.arguments = {"convert-hdf5", std::string(to_string(conversion)), "--name=" + name},
                           .input = bytes,
                           .name = name,
                           .wait_max = wait_max});
}

bool is_hdf5(std::string_view bytes) {
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1A\n";
  // Behind bytes of somebody else's the file begins at 512, 1024, 2048, ...
  for (std::size_t begin = 0; begin < bytes.size(); begin = begin == 0 ? 512 : 2 * begin) {
    if (bytes.substr(begin).starts_with(kSignature)) return true;
  }
  return false;
}

namespace {

proto::TrainedNet parse_hdf5(std::string_view bytes, const std::string& file_name) {
  return proto::parse_model(convert_hdf5(Hdf5Conversion::kModelFrom, bytes, file_name), file_name);
}

}  // namespace

proto::TrainedNet parse_any_model(std::string_view bytes, const std::string& file_name) {
  return is_hdf5(bytes) ? parse_hdf5(bytes, file_name) : proto::parse_model(bytes, file_name);
}

proto::TrainedNet read_any_model(const std::filesystem::path& file) {
  return parse_any_model(read(file), file.string());
}

proto::SolverState read_any_solver_state(const std::filesystem::path& file) {
  const std::string bytes = read(file);
  if (!is_hdf5(bytes)) return proto::parse_solver_state(bytes, file.string());
  return proto::parse_solver_state(convert_hdf5(Hdf5Conversion::kStateFrom, bytes, file.string()), file.string());
}

proto::TrainedNet read_hdf5_model(const std::filesystem::path& file) {
  return parse_hdf5(read(file), file.string());
}

Status write_hdf5_model(const std::filesystem::path& file, const proto::TrainedNet& net) {
  const Result<std::string> bytes = proto::model_bytes(net);
  if (!bytes) return bytes.error();
  return base::write_file_atomically(file, convert_hdf5(Hdf5Conversion::kModelTo, *bytes, file.string()));
}

}  // namespace poseidon::caffe
