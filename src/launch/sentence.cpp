#include "launch/sentence.h"

#include <array>
#include <cstdlib>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

namespace poseidon::launch {
namespace {

constexpr std::size_t kBytesMax = 64 * 1024;
constexpr std::array kCodes = {ErrorCode::kInvalid, ErrorCode::kNotFound, ErrorCode::kPeerLost, ErrorCode::kRefused,
                               ErrorCode::kTimeout, ErrorCode::kAborted,  ErrorCode::kSystem,   ErrorCode::kCorruptFrame};

std::filesystem::path file_of(const std::filesystem::path& folder, const std::string& process) { return folder / (process + ".error"); }

void leave_sentence(const std::string& process, const Error& error) {
  const char* const folder = std::getenv("POSEIDON_RUN_FOLDER");
  if (folder == nullptr) return;
  const Status written = base::write_file_atomically(file_of(folder, process), sentence_of(error));
  if (!written) base::log::warning(written.error().message);
}

}  // namespace

std::string process_name(int number, bool is_server) { return base::concat(is_server ? "server-" : "worker-", number); }

void report_error(int rank, const Error& error) { leave_sentence(process_name(rank, false), error); }

void report_server_error(int number, const Error& error) { leave_sentence(process_name(number, true), error); }

std::optional<Error> take_sentence(const std::filesystem::path& folder, const std::string& process) {
  const std::filesystem::path file = file_of(folder, process);
  const Result<std::string> text = base::read_file(file, kBytesMax);
  if (!text) return std::nullopt;
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
  return error_of_sentence(*text);
}

std::string sentence_of(const Error& error) { return base::concat(to_string(error.code), "\n", error.message); }

Error error_of_sentence(std::string_view text) {
  const std::size_t end = text.find('\n');
  for (const ErrorCode code : kCodes) {
    if (end != text.npos && text.substr(0, end) == to_string(code)) return {code, std::string(text.substr(end + 1))};
  }
  return {ErrorCode::kInvalid, std::string(text)};
}

}  // namespace poseidon::launch
