// The C ABI of a job on this host.
#include "poseidon/local.h"

#include <string>
#include <utility>

#include "base/text.h"
#include "capi/failure.h"
#include "capi/structs.h"

namespace poseidon::capi {
namespace {

LocalOptions options_of(const poseidon_local_options& given) {
  LocalOptions options;
  options.workers = given.workers;
  for (const char* const* word = given.command; word != nullptr && *word != nullptr; ++word) options.command.emplace_back(*word);
  if (given.run_folder != nullptr) options.run_folder = given.run_folder;
  if (given.schemes != nullptr) options.schemes = given.schemes;
  if (given.plan != nullptr) options.plan = given.plan;
  if (given.link_bytes_per_second != 0) options.link_bytes_per_second = given.link_bytes_per_second;
  if (given.per_host != nullptr) options.per_host = given.per_host;
  if (given.staging_bytes_max != 0) options.staging_bytes_max = given.staging_bytes_max;
  if (given.lanes != 0) options.lanes = given.lanes;
  options.tls = given.tls != 0;
  if (given.wire != 0) options.wire = static_cast<DType>(given.wire);
  void* const user = given.user;
  if (given.on_note != nullptr) {
    options.on_note = [function = given.on_note, user](int rank, const std::string& text) { function(user, rank, text.c_str()); };
  }
  if (given.on_plan != nullptr) {
    options.on_plan = [function = given.on_plan, user](const std::string& plan, const std::string& table) {
      function(user, plan.c_str(), table.c_str());
    };
  }
  if (given.on_wait != nullptr) {
    options.on_wait = [function = given.on_wait, user](const std::string& text) { function(user, text.c_str()); };
  }
  return options;
}

}  // namespace
}  // namespace poseidon::capi

using namespace poseidon;
using namespace poseidon::capi;

extern "C" {

int poseidon_run_local(const poseidon_local_options* options, poseidon_local_end* end) {
  return guarded([&]() -> int {
    const Result<poseidon_local_options> given = read(options, "poseidon_local_options");
    if (!given) return fail(given.error());
    poseidon_local_end answer = POSEIDON_INIT(poseidon_local_end);
    if (end != nullptr) {
      const Result<poseidon_local_end> place = read(end, "poseidon_local_end");
      if (!place) return fail(place.error());
    }
    if (given->wire < 0 || given->wire > POSEIDON_FLOAT16) {
      return fail({ErrorCode::kInvalid, base::concat("wire is ", given->wire, ": it must be POSEIDON_BFLOAT16 or POSEIDON_FLOAT16, or 0")});
    }
    const LocalEnd ended = run_local(options_of(*given));
    thread_local std::string run_folder;
    run_folder = ended.run_folder;
    answer.interrupted = ended.interrupted.value_or(0);
    answer.run_folder = run_folder.c_str();
    if (end != nullptr) write(answer, end);
    return ended.error ? fail(*ended.error) : POSEIDON_OK;
  });
}

}  // extern "C"
