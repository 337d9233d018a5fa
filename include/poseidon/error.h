// What can go wrong, as values.
//
// The world fails (a peer dies, bytes are bad, a disk is full): functions that can meet it return a Result. A code exists
// where a caller can do something different about it; everything else is the text, one sentence that names the rank, the
// layer or the file, with the numbers, and what to do.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "poseidon/export.h"

namespace poseidon {

enum class ErrorCode {
  kInvalid,       // an argument, file or flag of the user's cannot be used as it is
  kNotFound,      // a file, tensor or peer that was named does not exist
  kCorruptFrame,  // bytes from a peer are not what the protocol allows: close that link
  kStaleEpoch,    // a frame from before a recovery: drop it and go on
  kPeerLost,      // a member of the job died or fell silent
  kRefused,       // the other side turned us away (wrong secret, other parameters, rank taken)
  kTimeout,       // a bounded wait ran out; the text says whom it waited for
  kAborted,       // the job ends because of somebody else's error, which the text repeats
  kSystem,        // the operating system said no (disk full, port in use, out of memory)
};

// The name of a code for logs and JSON, e.g. "peer_lost".
POSEIDON_API std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInvalid;
  std::string message;
};

// Either a T or an Error. Reading the side that is not there is a programming error and ends the process.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit on purpose, for `return value;`
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: and for `return Error{...};`

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

// Success, or an Error: the result of what yields no value.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return error_.value(); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace poseidon
