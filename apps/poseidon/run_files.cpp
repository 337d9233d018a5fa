#include "apps/poseidon/run_files.h"

#include "base/text.h"

namespace poseidon::app {

std::string log_name(int number, int workers) {
  const bool is_worker = number < workers;
  const int own = is_worker ? number : number - workers;
  return base::concat(is_worker ? "rank-" : "server-", own < 10 ? "0" : "", own, ".log");
}

}  // namespace poseidon::app
