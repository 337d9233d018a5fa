#include "capi/failure.h"

#include <array>

namespace poseidon::capi {
namespace {

// By the number of poseidon_code, less one.
constexpr std::array kCodes = {ErrorCode::kInvalid,    ErrorCode::kNotFound, ErrorCode::kCorruptFrame,
                               ErrorCode::kStaleEpoch, ErrorCode::kPeerLost, ErrorCode::kRefused,
                               ErrorCode::kTimeout,    ErrorCode::kAborted,  ErrorCode::kSystem};

std::string& sentence() {
  thread_local std::string text;
  return text;
}

}  // namespace

int code_of(ErrorCode code) {
  for (std::size_t i = 0; i < kCodes.size(); ++i) {
    if (kCodes[i] == code) return static_cast<int>(i) + 1;
  }
  return POSEIDON_SYSTEM;
}

ErrorCode error_code_of(int code) {
  const bool exists = code >= 1 && code <= static_cast<int>(kCodes.size());
  return exists ? kCodes[static_cast<std::size_t>(code) - 1] : ErrorCode::kInvalid;
}

Error null_pointer(const char* what) { return Error{ErrorCode::kInvalid, std::string("a null pointer to ") + what}; }

int fail(const Error& error) {
  sentence() = error.message;
  return code_of(error.code);
}

int fail(const Status& status) { return status.ok() ? POSEIDON_OK : fail(status.error()); }

const char* last_error() { return sentence().c_str(); }

}  // namespace poseidon::capi
