// The precompiled header of the command: each of these takes several seconds to parse. Files still include what they use.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engines/torch/torch_headers.h"
