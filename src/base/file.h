// Whole files, read and written so that a crash or a full disk never leaves half of one under its final name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::base {

// Until when a write waits.
enum class Flush : std::uint8_t {
  kToDisk,   // until the file outlives the loss of the host's power; on a busy disk that takes seconds
  kToSystem  // until it outlives this process: for what a lane writes, whose peers take it for dead when it is silent for that long
};

// Writes beside the target under a temporary name, flushes, then renames. On an error nothing is left behind and an older file of
// that name is untouched.
Status write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes, Flush flush = Flush::kToDisk);
Status write_file_atomically(const std::filesystem::path& path, std::string_view text, Flush flush = Flush::kToDisk);

// Refuses what is not a regular file, and files over `bytes_max`.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t bytes_max = std::size_t{1} << 31);

}  // namespace poseidon::base
