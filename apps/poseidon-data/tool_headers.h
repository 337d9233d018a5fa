// The precompiled header of both programs: CLI11 takes several seconds to parse. Files still include what they use.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>
