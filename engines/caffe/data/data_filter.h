// Bytes through a child process: HDF5 files become the protobuf form of the same thing, and the other way round.
//
// The trainer links no HDF5, for a reason that hdf5_file.h gives. It hands the bytes of a file to `poseidon-data
// convert-hdf5` and gets others back, so it is still the trainer that reads and writes files, compares their checksums
// and writes them atomically; the child touches none.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/solver_state_file.h"

namespace poseidon::caffe {

enum class Hdf5Conversion : std::uint8_t { kModelFrom, kModelTo, kStateFrom, kStateTo };
// "model-from" and so on: for the child's command line.
std::string_view to_string(Hdf5Conversion conversion);

// `name` is that of the file, for messages. Throws ConfigError for bytes that are not what they should be, also where
// the child died of them; SystemError where it could not live, or took longer than `wait_max`.
std::string convert_hdf5(Hdf5Conversion conversion, std::string_view bytes, const std::string& name,
                         std::chrono::milliseconds wait_max = std::chrono::minutes(10));

// One run of poseidon-data. Gives it `input`, and returns what it wrote. Throws as above.
struct DataProgramRun {
  std::vector<std::string> arguments;
  std::string_view input = {};
  std::string name;  // of the file that it is about
  std::chrono::milliseconds wait_max = std::chrono::minutes(10);
};
std::string run_data_program(const DataProgramRun& run);

// By the first bytes, as Caffe tells.
bool is_hdf5(std::string_view bytes);

// A trained model or a solver's state in either form. Throw as above, and as proto::parse_model does.
proto::TrainedNet parse_any_model(std::string_view bytes, const std::string& file_name);
proto::TrainedNet read_any_model(const std::filesystem::path& file);
proto::SolverState read_any_solver_state(const std::filesystem::path& file);
// The same in HDF5 alone.
proto::TrainedNet read_hdf5_model(const std::filesystem::path& file);
// Atomically, as proto::write_model does in the other form.
Status write_hdf5_model(const std::filesystem::path& file, const proto::TrainedNet& net);

}  // namespace poseidon::caffe
