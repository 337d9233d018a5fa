// Any bytes as a trained model, a net to upgrade, a solver's state or a mean file: a ConfigError or the contents, never
// anything else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "engines/caffe/proto/blob_file.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/safetensors_file.h"
#include "engines/caffe/proto/solver_state_file.h"
#include "engines/caffe/proto/upgrade_file.h"

namespace {

template <typename Action>
void unless_refused(Action action) {
  try {
    action();
  } catch (const poseidon::caffe::ConfigError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace poseidon::caffe::proto;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  unless_refused([&] { static_cast<void>(parse_model(*model_bytes(parse_model(bytes, "fuzz")), "again")); });
  unless_refused([&] { static_cast<void>(parse_safetensors(safetensors_bytes(parse_safetensors(bytes, "fuzz")), "again")); });
  unless_refused([&] {
    // What is upgraded is of the present form.
    if (!upgrade_net_bytes(upgrade_net_bytes(bytes, "fuzz").bytes, "again").old_forms.empty()) std::abort();
  });
  unless_refused([&] { static_cast<void>(solver_state_bytes(parse_solver_state(bytes, "fuzz"))); });
  unless_refused([&] { static_cast<void>(blob_bytes(parse_blob(bytes, "fuzz"))); });
  return 0;
}
