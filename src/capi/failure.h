// Errors on their way to C: a code to return, and a sentence that waits for whoever asks.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "poseidon/error.h"
#include "poseidon/poseidon.h"

namespace poseidon::capi {

int code_of(ErrorCode code);
// kInvalid for a number that is no code.
ErrorCode error_code_of(int code);

// "a null pointer to a cluster"
Error null_pointer(const char* what);

// Keeps the sentence for this thread's poseidon_last_error(), and gives the code.
int fail(const Error& error);
int fail(const Status& status);
// The sentence that is kept.
const char* last_error();

// Runs the body of a function of the ABI, so that no exception leaves it.
template <typename Body>
int guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(Error{ErrorCode::kSystem, "out of memory"});
  } catch (const std::exception& e) {
    return fail(Error{ErrorCode::kSystem, e.what()});
  } catch (...) {
    return fail(Error{ErrorCode::kSystem, "something was thrown that is no exception"});
  }
}

}  // namespace poseidon::capi
