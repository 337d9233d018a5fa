#include "engines/caffe/proto/solver_state_file.h"

#include <limits>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;

// What SolverState.poseidon_format says in the files that this program writes.
constexpr std::uint32_t kFormat = 1;

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::optional<ResumeState> resume_of(::caffe::SolverState& message, const std::string& file) {
  if (!message.has_poseidon_format()) return std::nullopt;
  if (message.poseidon_format() != kFormat) {
    throw ConfigError(concat(file, ": is a snapshot of format ", message.poseidon_format(),
                             "; this program reads format ", kFormat,
                             ", so resume with the version of Poseidon that wrote it"));
  }
  // The last field that is written: without it the file ends early.
  if (!message.has_poseidon_workers()) throw ConfigError(concat(file, ": is truncated"));
  ResumeState resume;
  resume.model_sha256 = message.poseidon_model_sha256();
  if (!is_sha256(resume.model_sha256)) throw ConfigError(concat(file, ": has no checksum of its model; it is damaged"));
  for (const ::caffe::PoseidonDataPosition& position : message.poseidon_data_position()) {
    resume.data_positions.push_back({position.layer(), position.next_record()});
  }
  resume.random_seed = message.poseidon_random_seed();
  resume.dtype = message.poseidon_dtype();
  resume.solver_type = message.poseidon_solver_type();
  resume.update = message.poseidon_update();
  for (::caffe::PoseidonCarriedState& carried : *message.mutable_poseidon_carried_state()) {
    CarriedBlobs& into = resume.carried.emplace_back(CarriedBlobs{.layer = carried.layer(), .blobs = {}});
    for (::caffe::BlobProto& blob : *carried.mutable_blobs()) {
      into.blobs.push_back(take_blob(blob, concat(file, ": state of layer \"", carried.layer(), "\"")));
    }
  }
  resume.workers = message.poseidon_workers();
  return resume;
}

}  // namespace

SolverState parse_solver_state(std::string_view bytes, std::string_view file_name) {
  const std::string file(file_name);
  ::caffe::SolverState message;
  parse_binary(bytes, file, "a snapshot of a solver (.solverstate)", message);
  if (!message.has_iter())
    throw ConfigError(concat(file, ": holds no iteration; a snapshot of a solver (.solverstate) was expected"));
  if (message.iter() < 0) throw ConfigError(concat(file, ": says iteration ", message.iter(), "; it is damaged"));
  SolverState state;
  state.iteration = message.iter();
  state.model_file = message.learned_net();
  state.current_step = message.current_step();
  state.resume = resume_of(message, file);
  for (int i = 0; i < message.history_size(); ++i) {
    state.history.push_back(take_blob(*message.mutable_history(i), concat(file, ": history ", i)));
  }
  return state;
}

SolverState read_solver_state(const std::filesystem::path& file) {
  return parse_solver_state(read_binary(file), file.string());
}

Result<std::string> solver_state_bytes(const SolverState& state) {
  if (state.iteration > std::numeric_limits<std::int32_t>::max()) {
    return Error{ErrorCode::kInvalid,
                 concat("iteration ", state.iteration, " is beyond what Caffe's snapshots can say")};
  }
  ::caffe::SolverState message;
  message.set_iter(static_cast<std::int32_t>(state.iteration));
  message.set_learned_net(state.model_file);
  message.set_current_step(static_cast<std::int32_t>(state.current_step));
  for (const Blob& blob : state.history) put_blob(blob, *message.add_history());
  if (state.resume) {
    message.set_poseidon_format(kFormat);
    message.set_poseidon_model_sha256(state.resume->model_sha256);
    for (const DataPosition& position : state.resume->data_positions) {
      ::caffe::PoseidonDataPosition* into = message.add_poseidon_data_position();
      into->set_layer(position.layer);
      into->set_next_record(position.next_record);
    }
    message.set_poseidon_random_seed(state.resume->random_seed);
    message.set_poseidon_dtype(state.resume->dtype);
    message.set_poseidon_solver_type(state.resume->solver_type);
    message.set_poseidon_update(state.resume->update);
    for (const CarriedBlobs& carried : state.resume->carried) {
      ::caffe::PoseidonCarriedState* into = message.add_poseidon_carried_state();
      into->set_layer(carried.layer);
      for (const Blob& blob : carried.blobs) put_blob(blob, *into->add_blobs());
    }
    message.set_poseidon_workers(state.resume->workers);
  }
  return to_binary(message, concat("the solver's state at iteration ", state.iteration));
}

Status write_solver_state(const std::filesystem::path& file, const SolverState& state) {
  const Result<std::string> bytes = solver_state_bytes(state);
  if (!bytes) return Error{bytes.error().code, concat("cannot write ", file.string(), ": ", bytes.error().message)};
  return base::write_file_atomically(file, std::string_view(*bytes));
}

}  // namespace poseidon::caffe::proto
