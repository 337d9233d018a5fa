// The printed names of the public enumerations.
#include "poseidon/error.h"
#include "poseidon/session.h"
#include "poseidon/types.h"

namespace poseidon {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kCorruptFrame:
      return "corrupt_frame";
    case ErrorCode::kStaleEpoch:
      return "stale_epoch";
    case ErrorCode::kPeerLost:
      return "peer_lost";
    case ErrorCode::kRefused:
      return "refused";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kAborted:
      return "aborted";
    case ErrorCode::kSystem:
      return "system";
  }
  return "unknown";
}

std::string_view to_string(DType type) {
  switch (type) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
  }
  return "unknown";
}

std::string_view to_string(Scheme scheme) {
  switch (scheme) {
    case Scheme::kPs:
      return "ps";
    case Scheme::kSfb:
      return "sfb";
    case Scheme::kAdam:
      return "adam";
    case Scheme::kBlock:
      return "block";
  }
  return "unknown";
}

}  // namespace poseidon
