// Help, or what is wrong with the flags, and the exit code that goes with it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/poseidon-data/commands.h"

namespace poseidon::data {

inline int report(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help
  std::fprintf(stderr, "%s: %s; --help shows the flags\n", app.get_name().c_str(), error.what());
  return kWrongUsage;
}

}  // namespace poseidon::data
