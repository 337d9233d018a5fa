// The flags that say who serves: dedicated servers besides the workers, or alone.
#pragma once

#include <string>

#include "apps/poseidon/command.h"
#include "plan/bound.h"
#include "poseidon/error.h"

namespace poseidon::app {

struct ServingOptions {
  std::string servers = "0";    // a number, or hosts separated by commas
  bool no_colocated = false;

  // Filled in by check().
  plan::Serving serving;

  void describe(CLI::App& app);
  // kInvalid, as a sentence with the flag, where they make no sense or name a host that is not this one.
  Status check();
};

// How many processes of dedicated servers "2" or "localhost,localhost" asks for.
Result<int> parse_servers(const std::string& text);

}  // namespace poseidon::app
