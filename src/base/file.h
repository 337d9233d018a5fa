// Whole files, read and written so that a crash or a full disk never leaves half of one under its final name.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::base {

// Writes beside the target under a temporary name, flushes to the disk, then renames. On an error nothing is left behind and
// an older file of that name is untouched.
Status write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);
Status write_file_atomically(const std::filesystem::path& path, std::string_view text);

// Refuses what is not a regular file, and files over `bytes_max`.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t bytes_max = std::size_t{1} << 31);

}  // namespace poseidon::base
