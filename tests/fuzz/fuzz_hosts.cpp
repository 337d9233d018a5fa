// Hostfiles, host lists and cluster files: any bytes give a placement or a sentence, and every host that comes out may go to ssh.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "launch/cluster_file.h"
#include "launch/hosts.h"

namespace {

void check(const poseidon::launch::Placement& placement) {
  if (placement.empty() || placement.size() > poseidon::launch::kWorkersMax) std::abort();
  for (const std::string& host : placement) {
    if (!poseidon::launch::is_host(host)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto placement = poseidon::launch::parse_hostfile(text, "fuzz")) check(*placement);
  if (const auto placement = poseidon::launch::parse_host_list(text)) check(*placement);
  if (const auto file = poseidon::launch::parse_cluster_file(text, "fuzz")) check(file->workers);
  return 0;
}
