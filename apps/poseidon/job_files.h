// What commands that start a job share: its folder, its workers' command line, and whether results can be written in the end.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::app {

// `wanted`, or "poseidon-runs/20261121-101500-STEM-4711": new, and never that of another job. Absolute, and it exists.
Result<std::filesystem::path> make_run_folder(const std::optional<std::string>& wanted, const std::string& stem);

// A file that could not be written in the end should be known before hours of training.
Status check_writable(const std::optional<std::string>& file, const char* flag);

// This program again, as `poseidon SUBCOMMAND ARGUMENTS`.
Result<std::vector<std::string>> own_command(const std::string& subcommand, const std::vector<std::string>& arguments);

// Where a worker of rank `rank` leaves its part of the job's timeline, for trace::merge_timelines.
std::filesystem::path timeline_part(const std::filesystem::path& folder, int rank);

// What a worker's PYTHONPATH begins with: the folder of the hook that attaches to the script, and in a build that of the package `poseidon`
// (an installed one is found without).
std::vector<std::filesystem::path> python_folders();

}  // namespace poseidon::app
