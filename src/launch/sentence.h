// One sentence about why a process of a job ends, for its launcher: a file beside its log, in the folder that POSEIDON_RUN_FOLDER names.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "poseidon/error.h"

namespace poseidon::launch {

// "worker-3", "server-0": what files of that process are called.
std::string process_name(int number, bool is_server);

// In a worker: leaves the sentence. Does nothing where there is no such folder.
void report_error(int rank, const Error& error);
// In a dedicated server, of that number: the same.
void report_server_error(int number, const Error& error);

// In a launcher: what the process of that name has left there, and takes it away.
std::optional<Error> take_sentence(const std::filesystem::path& folder, const std::string& process);

// How it is written: the code's name, a line's end, the message. What has no such code in front is kInvalid as a whole.
std::string sentence_of(const Error& error);
Error error_of_sentence(std::string_view text);

}  // namespace poseidon::launch
