// The flags that say who serves: dedicated servers besides the workers, or alone.
#pragma once

#include <string>
#include <vector>

#include "apps/poseidon/command.h"
#include "plan/bound.h"
#include "poseidon/error.h"

namespace poseidon::app {

struct ServingOptions {
  std::string servers = "0";    // a number, or hosts separated by commas
  bool no_colocated = false;

  // Filled in by check().
  plan::Serving serving;
  std::vector<std::string> hosts;  // of the dedicated servers, where they are named

  void describe(CLI::App& app);
  // kInvalid, as a sentence with the flag, where they make no sense: a job on other hosts names the servers' hosts, any other has none
  // but this one.
  Status check(bool on_other_hosts);
};

}  // namespace poseidon::app
